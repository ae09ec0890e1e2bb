/** What the graph leaves out, and whether what it says comes true. */

import type { CheckLine } from "../../contract.ts";
import type { GraphProps } from "./shared.tsx";

const number = (value: number | undefined) => (value === undefined ? "–" : value.toFixed(2).replace("-", "−"));

export function Left({ graph }: GraphProps) {
  const { left_out: left, checks, dictionary, encoder_dictionary } = graph.data;
  const count = (value: number) => value.toLocaleString("en");
  return (
    <details class="graph-left" data-testid="left-out">
      <summary>What this graph leaves out{checks.length > 0 && ", and whether it is true"}</summary>
      <ul>
        <li>
          {count(left.active_features)} features were active ({dictionary}
          {encoder_dictionary !== undefined && `; encoder: ${encoder_dictionary}`}); {count(left.traced_features)} were traced, the most influential, and {count(left.shown_features)} are in
          this page.
        </li>
        <li>
          {count(left.shown_edges)} of {count(left.traced_edges)} edges are in this page. What is left out of a node's input is one line of its list, so that shares stay exact.
        </li>
        <li>
          {(100 * left.rest).toFixed(0)} % of the influence ends in what is not in this page, {(100 * left.errors).toFixed(0)} % in what the dictionary misses.
        </li>
      </ul>
      {checks.length > 0 && <Checks checks={checks} />}
    </details>
  );
}

function Checks({ checks }: { checks: CheckLine[] }) {
  return (
    <table>
      <caption>Predicted beside measured, when nodes are taken away in the model: correlation</caption>
      <thead>
        <tr>
          <th scope="col">taken away</th>
          <th scope="col">n</th>
          <th scope="col">all frozen</th>
          <th scope="col">the model reacting</th>
          <th scope="col">simpler guides</th>
        </tr>
      </thead>
      <tbody>
        {checks.map((check, i) => (
          <tr key={i}>
            <th scope="row">{check.what}</th>
            <td class="number">{check.n}</td>
            <td class="number">{number(check.direct)}</td>
            <td class="number">
              {number(check.free)} {check.low !== undefined && `(${number(check.low)} to ${number(check.high)})`}
            </td>
            <td>
              {Object.entries(check.baselines)
                .map(([name, value]) => `${name} ${number(value ?? undefined)}`)
                .join(", ")}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
