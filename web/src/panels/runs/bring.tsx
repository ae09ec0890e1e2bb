/** Bring a recording: drop it, choose it or speak it, and say how it is to be explained. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { About } from "../../model/runs.ts";
import { shortened } from "../../model/numbers.ts";
import { clock } from "../../model/runs.ts";
import { record, type Recording, whyNot } from "./recorder.ts";

export type Options = Record<string, string | number>;

interface BringProps {
  about: About;
  first: boolean; // nothing is here yet
  send: (sound: Blob, name: string, options: Options) => void;
}

export function Bring({ about, first, send }: BringProps) {
  const form = useRef<HTMLFormElement>(null);
  const over = useDrop((file) => give(file, file.name));
  const [trouble, setTrouble] = useState("");
  const give = (sound: Blob, name: string) => {
    const most = about.upload;
    if (sound.size > most) return setTrouble(`That file has ${megabytes(sound.size)} MB; ${megabytes(most)} MB are taken.`);
    setTrouble("");
    send(sound, name, optionsOf(form.current));
  };
  const choose = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const file = input.files?.[0];
    if (file) give(file, file.name);
    input.value = ""; // the same file may be chosen again
  };
  return (
    <section class={`bring${over ? " over" : ""}${first ? " first" : ""}`} aria-label="Explain a recording" data-testid="bring">
      <div class="ways">
        <p class="say">{over ? "Let go to explain it." : "Drop a recording here, or"}</p>
        <label class="way main">
          Choose a recording
          <input type="file" accept="audio/*,.wav,.flac,.ogg,.oga,.opus,.mp3,.aif,.aiff,.au,.caf,.w64" onChange={choose} />
        </label>
        <Recorder give={give} tell={setTrouble} />
      </div>
      <Choices about={about} form={form} />
      {trouble && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
    </section>
  );
}

function Choices({ about, form }: { about: About; form: { current: HTMLFormElement | null } }) {
  const [model, setModel] = useState(() => about.models.find(({ chosen }) => chosen)?.name ?? "");
  const languages = about.models.find(({ name }) => name === model)?.languages;
  return (
    <form ref={form} class="choices" onSubmit={(event) => event.preventDefault()}>
      <label>
        Model{" "}
        <select name="model" value={model} onChange={(event) => setModel(event.currentTarget.value)}>
          {about.models.map(({ name, here, megabytes }) => (
            <option key={name} value={name}>
              {name}
              {here ? "" : ` (fetches ${megabytes} MB first)`}
            </option>
          ))}
        </select>
      </label>
      {languages?.length !== 0 && <Language languages={languages} key={model} />}
      <Watching about={about} model={model} key={`watching ${model}`} />
      <details>
        <summary>More options</summary>
        <div class="more">
          <label>
            Begin at <input name="offset" type="number" min="0" step="any" placeholder="0" /> s
          </label>
          <label>
            Show token <input name="token" type="number" min="0" step="1" placeholder="least certain" /> first, counted from 0
          </label>
          <label>
            Trace the circuits of <input name="circuits" type="number" min="0" max="5" step="1" placeholder="1" /> tokens
          </label>
          <label class="wide">
            What was said, if you know it <input name="reference" placeholder="adds the word error rate" maxLength={4000} />
          </label>
        </div>
      </details>
    </form>
  );
}

/** Of a model that writes several languages; where nobody knows which, a code is typed. */
function Language({ languages }: { languages: string[] | undefined }) {
  const names = useMemo(() => {
    const spoken = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
    const named = (languages ?? []).map((code) => ({ code, name: nameOf(spoken, code) }));
    return named.sort((a, b) => a.name.localeCompare(b.name, "en"));
  }, [languages]);
  return (
    <label>
      Language{" "}
      {languages ? (
        <select name="language">
          <option value="">found out</option>
          {names.map(({ code, name }) => (
            <option key={code} value={code}>
              {name}
            </option>
          ))}
        </select>
      ) : (
        <input name="language" placeholder="found out" maxLength={30} title="A code such as fr" />
      )}
    </label>
  );
}

function nameOf(spoken: Intl.DisplayNames, code: string): string {
  try {
    return spoken.of(code) ?? code;
  } catch {
    return code; // a directory may call its languages anything
  }
}

/** What watches for invented text: the monitor that comes with otoscope, one that was fitted, or nothing. */
function Watching({ about, model }: { about: About; model: string }) {
  const fitting = about.monitors.filter((one) => one.model === model || one.model === model.split("/").pop()); // a directory is named by its last part
  return (
    <label>
      Monitor{" "}
      <select name="monitor" title="Tells how much each token is to be trusted; one that was fitted to another model cannot">
        <option value="shipped">the one that comes with otoscope</option>
        {fitting.map(({ id, name, given }) => (
          <option key={id} value={id} selected={given}>
            {shortened(name, 60)}
          </option>
        ))}
        <option value="none">none</option>
      </select>
    </label>
  );
}

function Recorder({ give, tell }: { give: (sound: Blob, name: string) => void; tell: (trouble: string) => void }) {
  const [running, setRunning] = useState<Recording>();
  const [told, setTold] = useState({ seconds: 0, level: 0 });
  const why = whyNot();
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => setTold(running.told()), 100);
    return () => clearInterval(timer);
  }, [running]);
  const start = async () => {
    tell("");
    try {
      setRunning(await record());
    } catch {
      tell("The microphone cannot be used. Allow it in the browser, and see that one is there.");
    }
  };
  const stop = async (keep: boolean) => {
    setRunning(undefined);
    setTold({ seconds: 0, level: 0 });
    const sound = await running?.stop();
    if (!keep) return;
    if (sound) give(sound, `recording ${new Date().toLocaleString("sv-SE").replaceAll(":", "-")}.wav`);
    else tell("Nothing was recorded yet. Speak a little longer.");
  };
  if (!running) {
    return (
      <button type="button" class="way" disabled={!!why} title={why} onClick={start}>
        Record
      </button>
    );
  }
  return (
    <span class="recording">
      <span class="dot" aria-hidden="true" /> Recording {clock(told.seconds)}{" "}
      <meter min={0} max={1} value={told.level} aria-label="Loudness" />
      <button type="button" class="way main" onClick={() => stop(true)}>
        Stop and explain
      </button>
      <button type="button" class="way" onClick={() => stop(false)}>
        Discard
      </button>
    </span>
  );
}

/** Files that are dropped anywhere on the page; whether one hovers. */
function useDrop(give: (file: File) => void): boolean {
  const [over, setOver] = useState(false);
  const latest = useRef(give);
  latest.current = give;
  useEffect(() => {
    const hasFile = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const onOver = (event: DragEvent) => {
      if (!hasFile(event)) return;
      event.preventDefault(); // the browser would leave the page to open the file
      setOver(true);
    };
    const onLeave = (event: DragEvent) => event.relatedTarget === null && setOver(false);
    const onDrop = (event: DragEvent) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      setOver(false);
      const file = event.dataTransfer?.files[0];
      if (file) latest.current(file);
    };
    addEventListener("dragover", onOver);
    addEventListener("dragleave", onLeave);
    addEventListener("drop", onDrop);
    return () => {
      removeEventListener("dragover", onOver);
      removeEventListener("dragleave", onLeave);
      removeEventListener("drop", onDrop);
    };
  }, []);
  return over;
}

const NUMBERS = new Set(["offset", "token", "circuits"]);

function optionsOf(form: HTMLFormElement | null): Options {
  const given = [...new FormData(form ?? undefined)].map(([name, value]) => [name, String(value).trim()] as const);
  return Object.fromEntries(given.filter(([, value]) => value).map(([name, value]) => [name, NUMBERS.has(name) ? Number(value) : value]));
}

function megabytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}
