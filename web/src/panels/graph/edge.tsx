/** One edge taken apart: by the last attention head on its way, and why that head looked there. */

import { useRef, useState } from "preact/hooks";
import type { AttentionScore, EdgeSplit, HeadPart } from "../../contract.ts";
import { useHost } from "../../host.ts";
import { called, type Graph } from "../../model/graph.ts";
import { inWords } from "../../model/experiment.ts";
import { zeroedHead } from "../../model/graph_changes.ts";
import { keepSplit, splitLine, splitOf } from "../../model/graph-edges.ts";
import type { View } from "../../model/graph-state.ts";
import { change, shortened, visible } from "../../model/numbers.ts";
import { useExperiment } from "../experiment.tsx";

interface Props {
  graph: Graph;
  edge: number;
  view: View;
  place: string;
}

/** Those of an edge that the page came with, or those that its model says. */
export function HeadsOfEdge(props: Props) {
  const { graph, edge } = props;
  const [split, setSplit] = useState(() => splitOf(graph, edge));
  if (split) return <Parts {...props} split={split} />;
  return (
    <Asking
      {...props}
      told={(found) => {
        keepSplit(graph, found);
        setSplit(found);
      }}
    />
  );
}

/** The strongest edges alone come with their heads; others are split by the model, where one is at hand. */
function Asking({ graph, edge, place, told }: Props & { told: (split: EdgeSplit) => void }) {
  const host = useHost();
  const [asking, setAsking] = useState<AbortController | null>(null);
  const [error, setError] = useState("");
  const latest = useRef(told);
  latest.current = told;
  const ask = async () => {
    const controller = new AbortController();
    setAsking(controller);
    setError("");
    try {
      const [source, target] = [graph.node(graph.source[edge]!).id, graph.node(graph.target[edge]!).id];
      const answer = await host.act("split", { place, source, target }, { signal: controller.signal });
      latest.current(answer as unknown as EdgeSplit);
    } catch (problem) {
      if (!controller.signal.aborted) setError(problem instanceof Error ? problem.message : String(problem));
    } finally {
      setAsking(null);
    }
  };
  if (!host.can("split")) {
    return (
      <div class="edge-heads" data-testid="heads">
        <p class="note">
          The strongest edges alone carry their heads; this one needs the model. Open the page with <code>otoscope serve</code>, show it in a notebook with{" "}
          <code>doc.widget(model)</code>, or make the graph again (“Copy as Python”) and add:
        </p>
        <code class="split-line">
          <bdi dir="ltr">{splitLine(graph, edge)}</bdi>
        </code>
      </div>
    );
  }
  return (
    <div class="edge-heads" data-testid="heads">
      <p class="note">The strongest edges alone came with their heads.</p>
      <p class="actions">
        <button type="button" disabled={asking !== null} onClick={ask}>
          {asking ? "Asking the model…" : "Split it by head"}
        </button>
        {asking && (
          <button type="button" onClick={() => asking.abort()}>
            Stop
          </button>
        )}
      </p>
      {error && (
        <p class="caution" role="alert">
          <bdi>{shortened(error, 600)}</bdi>
        </p>
      )}
    </div>
  );
}

function Parts({ graph, edge, split, view }: Props & { split: EdgeSplit }) {
  const rest: { name: string; part: number }[] = [
    { name: "other heads", part: split.others },
    { name: "no head: the stream itself", part: split.residual },
    { name: "skip path", part: split.skip },
  ];
  const named: { name: string; part: number; head?: HeadPart }[] = [
    ...split.heads.map((head) => ({ name: `L${head.layer}H${head.head}${head.cross ? " cross-attention" : ""}`, part: head.part, head })),
    ...rest,
  ];
  const parts = named.filter(({ part }) => Math.abs(part) > 1e-6);
  const reach = Math.max(...parts.map(({ part }) => Math.abs(part)), 1e-9);
  const stream = graph.node(graph.target[edge]!).stream;
  return (
    <div class="edge-heads" data-testid="heads">
      <p class="note">By the last head on its way; parts sum to the edge, {change(graph.weight[edge]!)}.</p>
      <dl>
        {parts.map(({ name, part, head }) => (
          <div key={name}>
            <dt>
              {name} {head && <Zero stream={stream} head={head} />}
            </dt>
            <dd>
              <span class={part < 0 ? "bar falls" : "bar"} style={{ width: `${(4 * Math.abs(part)) / reach}rem` }} /> {change(part)}
            </dd>
          </div>
        ))}
      </dl>
      {split.scores.map((score, i) => (
        <Score key={i} graph={graph} score={score} view={view} />
      ))}
    </div>
  );
}

/** Puts a head into the list of changes of the page, where it has one. */
function Zero({ stream, head }: { stream: string; head: HeadPart }) {
  const experiment = useExperiment();
  const zeroed = zeroedHead(stream, head);
  if (!experiment || !zeroed) return null;
  const taken = experiment.has(zeroed);
  return (
    <button type="button" class="link" aria-pressed={taken} title={`${inWords(zeroed)}: ${taken ? "out of" : "into"} the list of changes`} onClick={() => (taken ? experiment.remove([zeroed]) : experiment.add([zeroed]))}>
      {taken ? "✓ zeroed" : "zero it"}
    </button>
  );
}

function Score({ graph, score, view }: { graph: Graph; score: AttentionScore; view: View }) {
  const token = (position: number) => shortened(visible(graph.data.tokens[position]?.text ?? ""), 24);
  const name = (id: string) => {
    const i = graph.index(id);
    return shortened(i === undefined ? id : called(graph.node(i), view.annotations), 40);
  };
  return (
    <>
      <p class="note">
        Why L{score.layer}H{score.head} looked from <q><bdi>{token(score.query)}</bdi></q> at <q><bdi>{token(score.key)}</bdi></q>: its score is {change(score.score)}; the
        pairs of query and key that make most of it
      </p>
      <ol class="pairs">
        {score.pairs.map(({ query, key, part }, i) => (
          <li key={i}>
            {change(part)} <bdi>{name(query)}</bdi> × <bdi>{name(key)}</bdi>
          </li>
        ))}
      </ol>
    </>
  );
}
