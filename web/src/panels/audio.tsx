/** The audio bench: everything that is known over time, on one axis, with playback. */

import { useEffect, useMemo, useRef } from "preact/hooks";
import type { ExplainDoc } from "../contract.ts";
import { drawPicture, drawWaveform, melPicture } from "../draw/rows.ts";
import type { Linked } from "../linked.ts";
import type { AccountBook } from "../model/accounts.ts";
import { extent, unpack } from "../model/arrays.ts";
import { type Change, spellSpan } from "../model/experiment.ts";
import { seconds } from "../model/numbers.ts";
import { shownEnd, type Span, type TimeAxis } from "../model/time.ts";
import { AttentionNote, AttentionRow, HeadChoice, useLooking } from "./bench/attention.tsx";
import { onBenchKey } from "./bench/keys.ts";
import { Row } from "./bench/row.tsx";
import { loop, type Selecting, useSelecting } from "./bench/selection.ts";
import { AccountRow, Alarms, FeatureRows, RiskRow } from "./bench/under.tsx";
import { useView, type View } from "./bench/view.ts";
import { type TimedWord, Tokens, Words } from "./bench/words.tsx";
import { Panel, type PanelProps, useDark } from "./common.tsx";
import { useExperiment } from "./experiment.tsx";
import type { Player } from "./player.ts";

interface Props extends PanelProps {
  book: AccountBook | undefined;
  player: Player;
  url: string | undefined;
  linked: Linked;
  onTime: { current: (time: number) => void }; // called while the sound plays
}

export function AudioBench(props: Props) {
  const { doc, token, select, player, linked } = props;
  const end = shownEnd(doc.audio.duration, doc.audio.window_seconds);
  const view = useView(end);
  const { axis, seen } = view;
  const looking = useLooking(doc);
  const selecting = useSelecting(view, player, doc.audio.duration);
  const cursor = useRef<HTMLDivElement>(null);
  const clock = useRef<HTMLSpanElement>(null);
  const span = spanOf(doc, token);
  const carried = doc.accounts?.tokens[token]?.carried;
  const place = (time: number) => {
    if (cursor.current) cursor.current.style.transform = `translateX(${axis.x(time)}px)`;
    if (clock.current) clock.current.textContent = time.toFixed(2);
  };
  props.onTime.current = (time) => {
    place(time);
    if (player.element.current?.paused === false) view.reveal({ start: time, end: time });
  };
  const choose = (word: TimedWord) => {
    select(word.first_token);
    player.play(word);
  };
  useEffect(() => {
    if (span) view.reveal(span);
  }, [token]);
  useEffect(() => place(player.now()), [axis]);
  const words = useMemo(
    () => <Words doc={doc} axis={axis} token={token} choose={choose} />,
    [doc, axis, token], // scrolling moves them without drawing them again
  );
  const strip = useMemo(() => <Tokens doc={doc} axis={axis} token={token} select={select} />, [doc, axis, token]);

  return (
    <Panel name="audio" title="Sound" lead={<Lead doc={doc} />}>
      <Controls {...props} span={span} selecting={selecting} view={view} clock={clock}>
        <HeadChoice {...looking} />
      </Controls>
      <div
        class="bench"
        ref={view.scroller}
        tabIndex={0}
        role="group"
        aria-label="Time axis. Arrows move the cursor, with shift they select; + and − zoom, 0 shows all; space plays."
        onScroll={view.follow}
        onKeyDown={(event) => onBenchKey(event, view, player, selecting, doc.audio.duration)}
      >
        <div
          class="rows"
          data-timed
          data-seconds={end}
          style={{ width: `${axis.width}px` }}
          onPointerDown={selecting.onPointerDown}
          onPointerMove={(event) => {
            const feature = (event.target as Element).closest<HTMLElement>("[data-feature]")?.dataset.feature;
            linked.at(axis.t(event.clientX - event.currentTarget.getBoundingClientRect().left), feature);
            selecting.onPointerMove(event);
          }}
          onPointerUp={selecting.onPointerUp}
          onPointerLeave={() => linked.nothing()}
        >
          <Marked axis={axis} span={span} name="span" />
          <Marked axis={axis} span={carried} name="carried" />
          <Marked axis={axis} span={selecting.selection} name="selection" />
          <Meant linked={linked} doc={doc} axis={axis} />
          <Pictures doc={doc} seen={seen} />
          {words}
          {strip}
          <AccountRow doc={doc} seen={seen} token={token} book={props.book} />
          <AttentionRow {...looking} token={token} seen={seen} />
          <RiskRow doc={doc} seen={seen} />
          <FeatureRows doc={doc} seen={seen} />
          <Ticks axis={axis} />
          <Alarms doc={doc} axis={axis} />
          {end > doc.audio.duration + 0.01 && (
            <div class="padding" data-testid="padding" style={{ left: `${axis.x(doc.audio.duration)}px` }}>
              <span>padding</span>
            </div>
          )}
          <div class="cursor" ref={cursor} />
        </div>
      </div>
      <AttentionNote doc={doc} token={token} choice={looking.choice} />
    </Panel>
  );
}

function Lead({ doc }: { doc: ExplainDoc }) {
  const { audio } = doc;
  const padding = audio.window_seconds - audio.duration;
  return (
    <>
      Waveform and the log-mel the model was given; its colours are scaled for this clip and are not loudness.
      {audio.recording_duration - audio.duration > 0.01 && (
        <>
          {" "}
          This is {audio.start.toFixed(2)}–{seconds(audio.start + audio.duration)} of a recording of{" "}
          {seconds(audio.recording_duration)}.
        </>
      )}
      {padding > 0.01 && <> After it the model heard {seconds(padding)} of padding.</>} <span data-picture="no">Drag over the rows to select a span.</span>
    </>
  );
}

interface ControlsProps extends Props {
  span: Span | undefined;
  selecting: Selecting;
  view: View;
  clock: { current: HTMLSpanElement | null };
  children: preact.ComponentChildren;
}

function Controls({ doc, player, url, span, selecting, view, clock, children }: ControlsProps) {
  const { selection } = selecting;
  return (
    <div class="controls">
      <button type="button" class="main" disabled={!url} aria-pressed={player.playing} onClick={() => player.toggle(selection)}>
        {player.playing ? "Pause" : "Play"}
      </button>
      <button type="button" disabled={!url || !span} onClick={() => span && player.play(span)}>
        Play the token
      </button>
      {selection && (
        <>
          <button type="button" disabled={!url} onClick={() => player.play(selection)}>
            Play {selection.start.toFixed(2)}–{seconds(selection.end)}
          </button>
          <button type="button" aria-pressed={selecting.looping} onClick={() => loop(selecting, player)}>
            Loop
          </button>
          <Silence span={selection} />
          <button type="button" onClick={() => selecting.select(undefined)}>
            Clear
          </button>
        </>
      )}
      <span class="clock">
        <span ref={clock} data-testid="clock">
          0.00
        </span>{" "}
        / {seconds(doc.audio.duration)}
      </span>
      <span class="zoom" role="group" aria-label="Zoom of the time axis">
        <button type="button" aria-label="Zoom out" onClick={() => view.zoom(0.5)}>
          −
        </button>
        <button type="button" aria-label="Zoom in" onClick={() => view.zoom(2)}>
          +
        </button>
        <button type="button" onClick={view.fit}>
          All
        </button>
        <button type="button" disabled={!selection && !span} onClick={() => view.show((selection ?? span) as Span)}>
          {selection ? "Selection" : "Token"}
        </button>
      </span>
      {children}
    </div>
  );
}

/** Takes the selected sound into the list of changes, or out of it again. */
function Silence({ span }: { span: Span }) {
  const experiment = useExperiment();
  if (!experiment) return null;
  const change: Change = { kind: "silence", text: spellSpan([span.start, span.end]) };
  const taken = experiment.has(change);
  return (
    <button
      type="button"
      aria-pressed={taken}
      title="Into the list of changes, under “Change it and listen again”"
      onClick={() => (taken ? experiment.remove([change]) : experiment.add([change]))}
    >
      Silence it
    </button>
  );
}

function Marked({ axis, span, name }: { axis: TimeAxis; span: Span | undefined; name: string }) {
  if (!span) return null;
  const left = axis.x(span.start);
  return <div class={`axis-mark ${name}`} data-testid={name} style={{ left: `${left}px`, width: `${axis.x(span.end) - left}px` }} />;
}

/** Where the pointer is, on every row; or where the token is that it is on elsewhere. */
function Meant({ linked, doc, axis }: { linked: Linked; doc: ExplainDoc; axis: TimeAxis }) {
  const line = useRef<HTMLDivElement>(null);
  const band = useRef<HTMLDivElement>(null);
  useEffect(
    () =>
      linked.follow(({ time, token }) => {
        if (!line.current || !band.current) return;
        line.current.hidden = time === undefined;
        line.current.style.transform = `translateX(${axis.x(time ?? 0)}px)`;
        line.current.dataset.time = time === undefined ? "" : `${time.toFixed(2)} s`;
        const span = token === undefined ? undefined : spanOf(doc, token);
        band.current.hidden = !span;
        if (!span) return;
        band.current.style.left = `${axis.x(span.start)}px`;
        band.current.style.width = `${axis.x(span.end) - axis.x(span.start)}px`;
      }),
    [linked, doc, axis],
  );
  return (
    <>
      <div class="axis-mark meant-span" ref={band} data-testid="meant-span" hidden />
      <div class="meant-time" ref={line} data-testid="meant-time" hidden />
    </>
  );
}

function Pictures({ doc, seen }: { doc: ExplainDoc; seen: TimeAxis }) {
  const dark = useDark();
  const peaks = useMemo(() => unpack(doc.waveform), [doc]);
  const loudest = useMemo(() => Math.max(0.001, ...extent(peaks).map(Math.abs)), [peaks]);
  const bands = doc.mel.shape[0] ?? 0;
  const picture = useMemo(() => melPicture(unpack(doc.mel), bands, dark), [doc, dark]);
  return (
    <>
      <Row
        name="waveform"
        label="waveform"
        height={72}
        seen={seen}
        draw={(surface) => drawWaveform(surface, peaks, doc.audio.duration, loudest)}
        keys={[doc]}
      />
      <Row
        name="log-mel"
        label={`log-mel, ${bands} bands`}
        height={120}
        seen={seen}
        draw={(surface) => drawPicture(surface, picture, doc.audio.mel_hop_seconds)}
        keys={[picture]}
      />
    </>
  );
}

function Ticks({ axis }: { axis: TimeAxis }) {
  return (
    <div class="ticks" aria-hidden="true">
      {axis.ticks(70).map((time) => (
        <span key={time} style={{ left: `${axis.x(time)}px` }}>
          {Number(time.toFixed(2))} s
        </span>
      ))}
    </div>
  );
}

export function spanOf(doc: ExplainDoc, token: number): Span | undefined {
  const one = doc.transcript.tokens[token];
  return one?.start !== undefined && one.end !== undefined ? { start: one.start, end: one.end } : undefined;
}
