/** One component of a sweep: its numbers, and what became of every item under its patch. */

import { useState } from "preact/hooks";
import type { SweepCell, SweepDoc, SweepMeasure, SweepOutcome, SweepValue } from "../contract.ts";
import { byWeight, controlOf, measured, told } from "../model/sweep.ts";
import { decimal, flowing, shortened } from "../model/numbers.ts";

const FIRST = 12; // outcomes shown before "all"

export function CellDetails({ doc, cell, measure }: { doc: SweepDoc; cell: SweepCell | undefined; measure: number }) {
  if (!cell) {
    return (
      <p class="note" data-testid="sweep-cell">
        Choose a cell to see what it did{doc.items.length > 0 && `, ${doc.items_name} by ${doc.items_name}`}.
      </p>
    );
  }
  return (
    <section class="sweep-cell" data-testid="sweep-cell" aria-live="polite">
      <h3>
        <bdi>{shortened(cell.label, 80)}</bdi> <small>{cell.component !== cell.label && <bdi>{shortened(cell.component, 80)}</bdi>}</small>
        {cell.winner && <span class="flag">strongest on the discovery half</span>}
      </h3>
      <dl>
        {doc.measures.map((one, i) => (
          <Facts key={i} value={cell.values[i]!} measure={one} />
        ))}
        {cell.price !== undefined && (
          <div>
            <dt>{doc.price_name}</dt>
            <dd>{told(cell.price, "share", true)}</dd>
          </div>
        )}
      </dl>
      <Outcomes doc={doc} outcomes={cell.outcomes} unit={doc.measures[measure]!.unit} key={cell.component + cell.label} />
    </section>
  );
}

function Facts({ value, measure }: { value: SweepValue; measure: SweepMeasure }) {
  const { unit, title } = measure;
  const own = measured(value);
  const facts: [string, string | undefined][] = [
    [title, own === undefined ? "not patched" : `${told(own, unit, false)}${value.count !== undefined ? ` (${value.count} of ${value.n})` : ""}`],
    ["95 % interval", value.low !== undefined && value.high !== undefined ? `${told(value.low, unit, false)} to ${told(value.high, unit, false)}` : undefined],
    [controlOf(measure), value.random === undefined ? undefined : told(value.random, unit, false)],
    ["random direction", value.direction === undefined ? undefined : told(value.direction, unit, false)],
    ["p", value.p === undefined ? undefined : value.p.toFixed(3)],
    ["p, corrected", value.p_adjusted === undefined ? undefined : value.p_adjusted.toFixed(3)],
    ["test half", value.test === undefined ? undefined : `${told(value.test, unit, false)} of ${value.test_n}`],
  ];
  return (
    <>
      {facts.map(
        ([name, text], i) =>
          text !== undefined && (
            <div key={i}>
              <dt>{name}</dt>
              <dd>{text}</dd>
            </div>
          ),
      )}
    </>
  );
}

function Outcomes({ doc, outcomes, unit }: { doc: SweepDoc; outcomes: SweepOutcome[]; unit: string }) {
  const [all, setAll] = useState(false);
  if (outcomes.length === 0) return <p class="note">Nothing is kept of single {doc.items_name}s.</p>;
  const order = byWeight(outcomes);
  const texts = outcomes.some((one) => one.text !== undefined);
  return (
    <>
      <ol class="outcomes">
        {(all ? order : order.slice(0, FIRST)).map((one) => {
          const item = doc.items[one.item]!;
          return (
            <li key={one.item}>
              <p class="outcome-name">
                {one.verdict !== undefined && <span class={`verdict-kind ${one.verdict}`}>{one.verdict}</span>}
                {one.change !== undefined && <strong> {unit === "share" ? decimal(one.change) : told(one.change, unit, true)}</strong>} <bdi title={item.name}>{shortened(item.name, 60)}</bdi>
                {item.half !== undefined && <small> {item.half} half</small>}
              </p>
              <p class={texts ? "before-after" : ""}>
                {texts && <span class="rung">before</span>}
                <bdi>{flowing(shortened(item.before, 300)) || "nothing"}</bdi>
                {texts && <span class="rung">after</span>}
                {texts && <bdi class="written">{flowing(shortened(one.text === undefined ? "" : (doc.texts[one.text] ?? ""), 300)) || "nothing"}</bdi>}
              </p>
            </li>
          );
        })}
      </ol>
      {order.length > FIRST && !all && (
        <button type="button" class="link" onClick={() => setAll(true)}>
          all {order.length} {doc.items_name}s
        </button>
      )}
    </>
  );
}
