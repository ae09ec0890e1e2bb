/** The table of runs: sorted by any column, two of them chosen to be compared. */

import { shortened } from "../../model/numbers.ts";
import { addressOf, clock, type Column, kindOf, type Order, orderBy, type Run, when } from "../../model/runs.ts";

const COLUMNS: readonly [Column, string][] = [
  ["title", "Run"],
  ["kind", "Kind"],
  ["model", "Model"],
  ["duration", "Sound"],
  ["made", "Made"],
];

interface ListProps {
  runs: readonly Run[];
  order: Order;
  setOrder: (order: Order) => void;
  chosen: readonly string[];
  choose: (id: string) => void;
}

export function List({ runs, order, setOrder, chosen, choose }: ListProps) {
  return (
    <table class="run-list" data-testid="run-list">
      <thead>
        <tr>
          <th scope="col">
            <span class="unseen">Compare</span>
          </th>
          {COLUMNS.map(([column, name]) => (
            <th key={column} scope="col" class={column} aria-sort={order.by === column ? (order.falling ? "descending" : "ascending") : "none"}>
              <button type="button" onClick={() => setOrder(orderBy(column, order))}>
                {name} <span aria-hidden="true">{order.by === column ? (order.falling ? "↓" : "↑") : ""}</span>
              </button>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {runs.map((run) => (
          <Row key={run.id} run={run} chosen={chosen.includes(run.id)} choose={choose} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ run, chosen, choose }: { run: Run; chosen: boolean; choose: (id: string) => void }) {
  const title = shortened(run.title, 100);
  const comparable = run.form === "page" && run.broken === null;
  return (
    <tr class={chosen ? "chosen-run" : ""} data-run={run.id}>
      <td class="pick">
        {comparable && <input type="checkbox" checked={chosen} aria-label={`Compare ${title}`} onChange={() => choose(run.id)} />}
      </td>
      <td class="title">
        {run.broken === null ? (
          <a href={addressOf(run)} title={run.path}>
            <bdi>{title}</bdi>
          </a>
        ) : (
          <bdi title={run.path}>{title}</bdi>
        )}
        {run.flags.map((flag) => (
          <span key={flag}>
            {" "}
            <span class="run-flag">{flag}</span>
          </span>
        ))}
        {run.text && (
          <p class="said-text">
            <bdi>{shortened(run.text, 160)}</bdi>
          </p>
        )}
        {run.note && (
          <p class="note-text">
            Note: <bdi>{shortened(run.note, 160)}</bdi>
          </p>
        )}
        {run.broken !== null && (
          <p class="trouble">
            <bdi>{shortened(run.broken, 300)}</bdi>
          </p>
        )}
      </td>
      <td class="kind">{shortened(kindOf(run), 24)}</td>
      <td class="model">
        <bdi title={run.model}>{shortened(run.model, 28)}</bdi>
      </td>
      <td class="duration">{run.duration === null ? "" : clock(run.duration)}</td>
      <td class="made">
        <time dateTime={new Date(run.made * 1000).toISOString()}>{when(run.made)}</time>
      </td>
    </tr>
  );
}
