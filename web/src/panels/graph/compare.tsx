/** Two graphs: which is shown, what their accounts differ in, and the nodes whose influence differs most. */

import { useMemo } from "preact/hooks";
import type { Account, GraphData } from "../../contract.ts";
import type { Graph } from "../../model/graph.ts";
import { differences } from "../../model/graph-compare.ts";
import { change, shortened, visible } from "../../model/numbers.ts";
import { type GraphProps, NodeName, shortPlace } from "./shared.tsx";

interface Props extends GraphProps {
  graphs: [Graph, Graph];
  which: 0 | 1;
  show: (which: 0 | 1, id?: string) => void;
}

const MOST = 12;

export function Compare(props: Props) {
  const { graphs, which, show } = props;
  const found = useMemo(() => differences(...graphs), [graphs]);
  const shared = found.filter(({ a, b }) => a !== undefined && b !== undefined).length;
  const alone = [found.filter(({ b }) => b === undefined).length, found.filter(({ a }) => a === undefined).length];
  return (
    <section class="graph-compare" aria-label="Two graphs" data-testid="compare">
      <p class="actions" role="group" aria-label="Which graph is shown">
        {graphs.map(({ data }, i) => (
          <button key={i} type="button" aria-pressed={which === i} onClick={() => show(i as 0 | 1)}>
            {i === 0 ? "First" : "Second"}: <bdi>{titleOf(data)}</bdi>
          </button>
        ))}
        <span class="note">
          {shared} nodes in both, {alone[0]} only in the first, {alone[1]} only in the second; outlined: not in the other.
        </span>
      </p>
      <details>
        <summary>What differs</summary>
        <div class="account">
          <Accounts graphs={graphs} />
          <div>
            <h3>Nodes whose influence differs most</h3>
            <table>
              <thead>
                <tr>
                  <th scope="col">node</th>
                  <th scope="col">first</th>
                  <th scope="col">second</th>
                </tr>
              </thead>
              <tbody>
                {found.slice(0, MOST).map(({ id, a, b, influence }) => {
                  const [graph, node] = a === undefined ? [graphs[1], b!] : [graphs[0], a];
                  return (
                    <tr key={id}>
                      <th scope="row">
                        <button type="button" class="link" onClick={() => show(a === undefined ? 1 : b === undefined ? 0 : which, id)}>
                          <NodeName graph={graph} node={node} annotations={props.view.annotations} length={36} />
                        </button>{" "}
                        <small>{shortPlace(graph.data, graph, node)}</small>
                      </th>
                      <td class="number">{a === undefined ? "–" : `${(100 * influence[0]).toFixed(2)} %`}</td>
                      <td class="number">{b === undefined ? "–" : `${(100 * influence[1]).toFixed(2)} %`}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        </div>
      </details>
    </section>
  );
}

function titleOf(data: GraphData): string {
  return shortened(`${data.targets.map(({ text }) => visible(text)).join(", ")} · ${data.model}`, 60);
}

function Accounts({ graphs }: { graphs: [Graph, Graph] }) {
  const rows = graphs.map(({ data }) => data.targets[0]?.account && parts(data, data.targets[0].account));
  if (!rows[0] || !rows[1]) return null;
  return (
    <div>
      <h3>Accounts of the first words, in logits</h3>
      <table>
        <thead>
          <tr>
            <th scope="col">from</th>
            <th scope="col">first</th>
            <th scope="col">second</th>
            <th scope="col">difference</th>
          </tr>
        </thead>
        <tbody>
          {rows[0].map(([name, value], i) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="number">{change(value)}</td>
              <td class="number">{change(rows[1]![i]![1])}</td>
              <td class="number">{change(rows[1]![i]![1] - value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function parts(data: GraphData, account: Account): [string, number][] {
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const text = sum(account.tokens.filter((_, i) => !data.tokens[i]?.prompt));
  return [
    ["sound", sum(account.sound)],
    ["words before", text],
    ["prompt", sum(account.tokens) - text],
    ["any case", account.biases + account.positions],
    ["errors", account.errors],
    ["in all", account.value],
  ];
}
