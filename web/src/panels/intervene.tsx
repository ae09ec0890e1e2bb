/** Change the sound, components or features, and see what is written instead. */

import type { ComponentChildren } from "preact";
import { useId, useMemo, useRef, useState } from "preact/hooks";
import type { ExplainDoc, Intervention, Outcome } from "../contract.ts";
import { type Json, type Progress, useHost } from "../host.ts";
import { Changes } from "../model/ablation.ts";
import { type Change, changesOf, inWords, readChange, spellComponent, spellSpan } from "../model/experiment.ts";
import { commandLine, type Given, type How, howOf, pythonLine } from "../model/lines.ts";
import { change as nats, shortened } from "../model/numbers.ts";
import { Panel, type PanelProps } from "./common.tsx";
import { useExperiment } from "./experiment.tsx";
import { Lines } from "./lines.tsx";
import { OutcomeView } from "./outcome.tsx";
import "../css/intervene.css";

interface About {
  model: string;
  given: Given;
  how: How;
  children?: ComponentChildren; // what is offered at a click
}

/** The panel of an explained clip. */
export function IntervenePanel(props: PanelProps) {
  const { doc } = props;
  return (
    <ChangePanel model={doc.model.name} given={{ of: "recording", text: doc.audio.file }} how={howOf(doc)}>
      <Suggestions {...props} />
    </ChangePanel>
  );
}

const LEADS: Record<Given["of"], [string, string]> = {
  recording: [
    "Change it and listen again",
    "Silence a piece of the sound, take a head or a block away, or set a feature: the model writes again, beside what it wrote before and beside the same change at random other places.",
  ],
  prompt: [
    "Change it and read again",
    "Take a head or a block away, or set a feature: the model continues the prompt again, beside what it wrote before and beside the same change at random other places.",
  ],
};

/** The panel of any page about a recording that it carries, or about a prompt, and of a model that it names. */
export function ChangePanel({ model, given, how, children }: About) {
  const experiment = useExperiment();
  const run = useRun();
  if (!experiment) return null;
  const { wanted } = experiment;
  const [title, lead] = LEADS[given.of];
  return (
    <Panel name="intervene" title={title} lead={lead}>
      {children}
      <Typed of={given.of} />
      <Pending />
      <Runner wanted={wanted} run={run} />
      {changesOf(wanted).length > 0 && (
        <>
          <Lines python={pythonLine(model, given, wanted, how)} command={commandLine(model, given, wanted, how)} />
          {given.of === "recording" && (
            <p class="note">
              Put the path of your recording in place of <bdi>{shortened(given.text, 60)}</bdi>.
            </p>
          )}
        </>
      )}
      {run.outcome && <Result outcome={run.outcome} wanted={wanted} />}
    </Panel>
  );
}

/** What is near the chosen token: its sound, and the head and the block that it hangs on most. */
function Suggestions({ doc, token }: PanelProps) {
  const changes = useMemo(() => new Changes(doc.ablation), [doc]);
  const offered = useMemo(() => suggestionsFor(doc, changes, token), [doc, changes, token]);
  if (offered.length === 0) return null;
  return (
    <div class="offers" role="group" aria-label="Changes near the chosen token">
      {offered.map((one) => (
        <Offer key={one.change.text} {...one} />
      ))}
    </div>
  );
}

export interface Suggestion {
  change: Change;
  said: string;
  why?: string;
}

export function Offer({ change, said, why }: Suggestion) {
  const experiment = useExperiment();
  const taken = experiment?.has(change) ?? false;
  const toggle = () => (taken ? experiment?.remove([change]) : experiment?.add([change]));
  return (
    <button type="button" class="offer" aria-pressed={taken} title={inWords(change)} onClick={toggle}>
      <span aria-hidden="true">{taken ? "✓" : "+"}</span> <bdi>{said}</bdi> {why && <small>{why}</small>}
    </button>
  );
}

function suggestionsFor(doc: ExplainDoc, changes: Changes, token: number): Suggestion[] {
  const found: Suggestion[] = [];
  const word = doc.transcript.words.find(({ first_token, last_token }) => first_token <= token && token <= last_token);
  if (word?.start !== undefined && word.end !== undefined && word.end > word.start) {
    const text = spellSpan([word.start, word.end]);
    found.push({
      change: { kind: "silence", text },
      said: `Silence “${shortened(word.text.trim(), 24)}”`,
      why: `${word.start.toFixed(2)}–${word.end.toFixed(2)} s`,
    });
  }
  for (const heads of [true, false]) {
    const rows = doc.ablation.components.map((component, row) => ({ component, row, by: changes.at(row, token) }));
    const own = rows.filter(({ component, by }) => (component.head !== undefined) === heads && by < 0);
    // A head counts by how much more it does than a random subspace of its size.
    const beyond = ({ component, by }: (typeof own)[number]) => by - (changes.control(component, token)?.mean ?? 0);
    const most = own.sort((a, b) => beyond(a) - beyond(b))[0];
    if (!most) continue;
    found.push({
      change: { kind: "zero", text: spellComponent(most.component) },
      said: `Zero ${shortened(most.component.label, 40)}`,
      why: `this token's ${heads ? "head" : "block"}, ${nats(most.by)} nats`,
    });
  }
  return found;
}

/** Anything that can be spelled. */
function Typed({ of }: { of: Given["of"] }) {
  const experiment = useExperiment();
  const [text, setText] = useState("");
  const [refused, setRefused] = useState(false);
  const id = useId();
  const add = () => {
    const change = readChange(text);
    setRefused(!change);
    if (!change) return;
    experiment?.add([change]);
    setText("");
  };
  // No form: the frame of a notebook lets none be sent.
  return (
    <div class="typed">
      <label for={id}>Or write one</label>
      <input
        id={id}
        value={text}
        spellcheck={false}
        autocomplete="off"
        placeholder={of === "prompt" ? "blocks.9.attn.3" : "encoder:3:604=0"}
        aria-invalid={refused}
        aria-describedby={`${id}-how`}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && add()}
      />
      <button type="button" onClick={add}>
        Add
      </button>
      <small id={`${id}-how`} role={refused ? "alert" : undefined}>
        {refused && "That is no change. "}
        {of === "recording" && (
          <>
            <code>1.2-1.8</code> silences,{" "}
          </>
        )}
        <code>{of === "prompt" ? "blocks.9.attn.3" : "decoder_blocks.2.cross_attn.3"}</code> zeroes a head, with <code>x0.5</code> behind it halves it;{" "}
        <code>{of === "prompt" ? "text:9:17=0" : "encoder:3:604=0"}</code> sets a feature, <code>x2</code> in place of <code>=0</code> doubles it
        {of === "prompt" && (
          <>
            , <code>@3</code> at the end does so at one position alone
          </>
        )}
        . All counted from 0.
      </small>
    </div>
  );
}

function Pending() {
  const experiment = useExperiment();
  const changes = experiment ? changesOf(experiment.wanted) : [];
  if (changes.length === 0) return <p class="note">Nothing is changed yet. Write a change, or choose one where the page offers it.</p>;
  return (
    <ul class="pending" aria-label="What will be changed">
      {changes.map((change) => (
        <li key={change.text} title={change.text}>
          <bdi>{inWords(change)}</bdi>
          <button type="button" aria-label={`Take back: ${inWords(change)}`} onClick={() => experiment?.remove([change])}>
            ×
          </button>
        </li>
      ))}
    </ul>
  );
}

interface RunState {
  outcome: Outcome | null;
  progress: Progress | null;
  error: string;
  stopped: boolean; // by the person, since it was last started
  start(wanted: Intervention): void;
  cancel(): void;
}

function useRun(): RunState {
  const host = useHost();
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [progress, setProgress] = useState<Progress | null>(null);
  const [error, setError] = useState("");
  const [stopped, setStopped] = useState(false);
  const aborting = useRef<AbortController | null>(null);
  const start = async (wanted: Intervention) => {
    const controller = new AbortController();
    aborting.current = controller;
    setError("");
    setStopped(false);
    setProgress({ done: 0, total: 0, stage: "Waiting for the model" });
    try {
      const args = { intervention: wanted as unknown as Json };
      const answer = await host.act("intervene", args, { onProgress: setProgress, signal: controller.signal });
      setOutcome(answer as unknown as Outcome);
    } catch (problem) {
      if (controller.signal.aborted) setStopped(true);
      else setError(problem instanceof Error ? problem.message : String(problem));
    } finally {
      if (aborting.current === controller) setProgress(null);
    }
  };
  return { outcome, progress, error, stopped, start, cancel: () => aborting.current?.abort() };
}

function Runner({ wanted, run }: { wanted: Intervention; run: RunState }) {
  const host = useHost();
  const able = host.can("intervene");
  const { progress } = run;
  return (
    <>
      <div class="controls">
        <button
          type="button"
          disabled={!able || changesOf(wanted).length === 0 || progress !== null}
          onClick={() => run.start(wanted)}
        >
          Write again
        </button>
        {progress && (
          <>
            <progress
              aria-label="Progress"
              max={progress.total || 1}
              {...(progress.total ? { value: Math.min(progress.done, progress.total) } : {})}
            />
            <span class="note" role="status">
              <bdi>{progress.stage}</bdi> {progress.total > 0 && `${Math.floor(progress.done)} of ${progress.total} ${progress.unit ?? ""}`}
            </span>
            <button type="button" onClick={run.cancel}>
              Stop
            </button>
          </>
        )}
      </div>
      {!able && (
        <p class="note">
          {host.kind === "notebook"
            ? "No model is connected to this cell: show the page with doc.widget(model)."
            : "A page opened from disk runs no model."}{" "}
          {changesOf(wanted).length > 0
            ? "The lines below do the same where otoscope is installed."
            : "Once something is chosen, lines stand here that do it where otoscope is installed."}
        </p>
      )}
      {run.stopped && (
        <p class="note" role="status">
          Stopped; nothing new was written.
        </p>
      )}
      {run.error && (
        <p class="caution" role="alert">
          <bdi>{shortened(run.error, 600)}</bdi>
        </p>
      )}
    </>
  );
}

function Result({ outcome, wanted }: { outcome: Outcome; wanted: Intervention }) {
  const same = changesOf(outcome.intervention).map(({ text }) => text).join() === changesOf(wanted).map(({ text }) => text).join();
  return (
    <div data-testid="outcome">
      <h3>What came of it</h3>
      {!same && (
        <p class="note">
          Of another list than the one above: <bdi>{changesOf(outcome.intervention).map(inWords).join("; ")}</bdi>.
        </p>
      )}
      <OutcomeView outcome={outcome} />
    </div>
  );
}
