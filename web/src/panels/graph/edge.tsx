/** One edge taken apart: by the last attention head on its way, and why that head looked there. */

import type { AttentionScore, EdgeSplit } from "../../contract.ts";
import { called, type Graph } from "../../model/graph.ts";
import type { View } from "../../model/graph-state.ts";
import { change, shortened, visible } from "../../model/numbers.ts";

interface Props {
  graph: Graph;
  edge: number;
  split: EdgeSplit;
  view: View;
}

export function HeadsOfEdge({ graph, edge, split, view }: Props) {
  const parts = [
    ...split.heads.map(({ layer, head, cross, part }) => ({ name: `L${layer}H${head}${cross ? " cross-attention" : ""}`, part })),
    { name: "other heads", part: split.others },
    { name: "no head: the stream itself", part: split.residual },
    { name: "skip path", part: split.skip },
  ].filter(({ part }) => Math.abs(part) > 1e-6);
  const reach = Math.max(...parts.map(({ part }) => Math.abs(part)), 1e-9);
  return (
    <div class="edge-heads" data-testid="heads">
      <p class="note">By the last head on its way; parts sum to the edge, {change(graph.weight[edge]!)}.</p>
      <dl>
        {parts.map(({ name, part }) => (
          <div key={name}>
            <dt>{name}</dt>
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
