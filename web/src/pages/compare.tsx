/** Two runs side by side: how they differ in short, and both pages, which follow each other. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import "../css/runs.css";
import type { GraphDoc } from "../contract.ts";
import type { Doc } from "../host.ts";
import { areApart, type Following, follow } from "../model/following.ts";
import { shortened } from "../model/numbers.ts";
import { GraphPage } from "./graph.tsx";
import { clock, difference, kindOf, type Run, type Word } from "../model/runs.ts";

export interface Pair {
  runs: [Run, Run];
  docs: [Doc, Doc];
}

/** Graphs are compared in one panel, which knows what they have in common; other runs lie beside each other. */
export function ComparePage({ runs, docs }: Pair) {
  const [a, b] = docs;
  if (a.kind === "graph" && b.kind === "graph") {
    return (
      <>
        <nav class="run-bar">
          <a href="/">← All runs</a>
        </nav>
        <GraphPage doc={together(a, b)} />
      </>
    );
  }
  return <SideBySide runs={runs} docs={docs} />;
}

/** One document of two graphs. */
function together(a: GraphDoc, b: GraphDoc): GraphDoc {
  const sound = b.resources.audio;
  return {
    ...a,
    title: `${a.title}, and ${b.title}`,
    other: b.graph,
    ...(b.sound && { other_sound: b.sound }),
    resources: { ...b.resources, ...a.resources, ...(sound && { "other-audio": sound }) },
  };
}

function SideBySide({ runs, docs }: Pair) {
  const frames = [useRef<HTMLIFrameElement>(null), useRef<HTMLIFrameElement>(null)] as const;
  const [ready, setReady] = useState(0);
  useEffect(() => {
    const [a, b] = frames.map((frame) => frame.current?.contentWindow);
    if (ready < 2 || !a || !b) return undefined;
    const following: Following = follow([a, b], docs);
    return () => following.end();
  }, [ready]);
  return (
    <main class="runs compare">
      <p class="title">
        <a href="/">← All runs</a>
      </p>
      <h1>Two runs side by side</h1>
      <Differences runs={runs} />
      <p class="note">
        What you choose in one is chosen in the other{docs[0].kind === "explain" && docs[1].kind === "explain" ? ", by its time in the sound" : ""}; they
        scroll together, panel by panel.
      </p>
      {areApart(docs) && (
        <p class="caution" role="note">
          These are two different recordings or texts: what is chosen in one and what then is chosen in the other are only at the same{" "}
          {docs.every(({ kind }) => kind === "explain") ? "time" : "number"}, and need not be the same word.
        </p>
      )}
      <div class="frames">
        {runs.map((run, i) => (
          <iframe
            key={run.id}
            ref={frames[i as 0 | 1]}
            src={`/beside/${run.id}${location.hash}`}
            title={`${i === 0 ? "Left" : "Right"}: ${shortened(run.title, 100)}`}
            onLoad={() => setReady((count) => count + 1)}
          />
        ))}
      </div>
    </main>
  );
}

function Differences({ runs }: { runs: [Run, Run] }) {
  const [a, b] = runs;
  const texts = useMemo(() => difference(a.text, b.text), [a, b]);
  const rows: [string, string, string][] = [
    ["Model", a.model, b.model],
    ["Kind", kindOf(a), kindOf(b)],
    ["Sound", a.duration === null ? "" : clock(a.duration), b.duration === null ? "" : clock(b.duration)],
    ["Flags", a.flags.join(", "), b.flags.join(", ")],
    ["Note", a.note ?? "", b.note ?? ""],
  ];
  return (
    <table class="differences">
      <thead>
        <tr>
          <td />
          {runs.map((run) => (
            <th key={run.id} scope="col">
              <a href={`/run/${run.id}`}>
                <bdi>{shortened(run.title, 80)}</bdi>
              </a>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows
          .filter(([, left, right]) => left !== right)
          .map(([name, left, right]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {[left, right].map((value, i) => (
                <td key={i}>
                  <bdi>{shortened(value, 200) || "–"}</bdi>
                </td>
              ))}
            </tr>
          ))}
        <tr>
          <th scope="row">Text</th>
          {texts.map((words, i) => (
            <td key={i}>
              <Marked words={words} />
            </td>
          ))}
        </tr>
      </tbody>
    </table>
  );
}

/** A text whose words that the other has not are marked. */
function Marked({ words }: { words: Word[] }) {
  if (words.length === 0) return <>–</>;
  return (
    <bdi class="said-text">
      {words.map(({ text, same }, i) => (
        <span key={i}>
          {i > 0 && " "}
          {same ? shortened(text, 60) : <mark>{shortened(text, 60)}</mark>}
        </span>
      ))}
    </bdi>
  );
}
