/** All components of a sweep in a table that every column sorts. */

import { useMemo, useState } from "preact/hooks";
import type { SweepDoc, SweepValue } from "../contract.ts";
import { type Column, controlOf, lessControl, measured, ordersBySize, sorted, told, type View } from "../model/sweep.ts";
import { shortened } from "../model/numbers.ts";
import { Panel } from "./common.tsx";
import { Figure } from "./figure.tsx";

const FIRST = 15;

interface Props {
  doc: SweepDoc;
  view: View;
  chosen: number | undefined;
  choose: (index: number) => void;
}

export function SweepTable({ doc, view, chosen, choose }: Props) {
  const [by, setBy] = useState<Column>("less");
  const [down, setDown] = useState(true);
  const [all, setAll] = useState(false);
  const unit = doc.measures[view.measure]!.unit;
  const order = useMemo(() => sorted(doc, view.measure, by, down), [doc, view.measure, by, down]);
  const columns = columnsOf(doc, view.measure);
  const sortBy = (column: Column) => {
    setDown(column === by ? !down : column !== "label" && column !== "p");
    setBy(column);
  };
  const rows = all ? order : order.slice(0, FIRST);
  return (
    <Panel name="sweep-table" title="All components" lead="Press a column's head to sort by it, a component to see what it did.">
      <Figure name="sweep-table" title={shortened(doc.title, 160)} about={`${doc.measures[view.measure]!.title}, ${all ? "all" : "the first"} ${rows.length} of ${order.length} components.`}>
        <div class="scroll" tabIndex={0} role="group" aria-label="All components; scrolls when it is wide">
          <table class="sweep-table">
            <thead>
              <tr>
                {columns.map(([column, name]) => (
                  <th scope="col" key={column} aria-sort={column === by ? (down ? "descending" : "ascending") : "none"}>
                    <button type="button" class="sort" onClick={() => sortBy(column)}>
                      {name}
                      <span aria-hidden="true">{column === by ? (down ? " ↓" : " ↑") : ""}</span>
                      {column === by && ordersBySize(doc, view.measure, by) && <small> by size</small>}
                    </button>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((index) => {
                const cell = doc.cells[index]!;
                const value = cell.values[view.measure]!;
                return (
                  <tr key={index} class={value.stands_out ? "out" : "muted"} aria-current={index === chosen}>
                    {columns.map(([column]) =>
                      column === "label" ? (
                        <th scope="row" key={column}>
                          <button type="button" class="link" onClick={() => choose(index)}>
                            <bdi>{shortened(cell.label, 40)}</bdi>
                          </button>
                        </th>
                      ) : (
                        <td class="number" key={column}>
                          {column === "price" ? told(cell.price, "share", true) : written(value, column, unit)}
                        </td>
                      ),
                    )}
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      </Figure>
      {order.length > FIRST && (
        <button type="button" class="link" onClick={() => setAll(!all)}>
          {all ? "fewer" : `all ${order.length} components`}
        </button>
      )}
    </Panel>
  );
}

/** The columns that hold something. */
function columnsOf(doc: SweepDoc, measure: number): [Column, string][] {
  const has = (name: keyof SweepValue) => doc.cells.some((cell) => cell.values[measure]?.[name] !== undefined);
  const corrected = has("p_adjusted");
  const control = controlOf(doc.measures[measure]!);
  return [
    ["label", "component"],
    ["value", shortened(doc.measures[measure]!.title, 40)],
    ...(has("random") ? ([["random", control], ["less", `minus ${control}`]] as [Column, string][]) : []),
    ...(has("direction") ? ([["direction", "random direction"]] as [Column, string][]) : []),
    ...(has("p") || corrected ? ([["p", corrected ? "p, corrected" : "p"]] as [Column, string][]) : []),
    ...(has("test") ? ([["test", "test half"]] as [Column, string][]) : []),
    ...(doc.cells.some((cell) => cell.price !== undefined) ? ([["price", doc.price_name ?? "price"]] as [Column, string][]) : []),
  ];
}

function written(value: SweepValue, column: Column, unit: string): string {
  switch (column) {
    case "value":
      if (measured(value) === undefined) return "not patched";
      return told(measured(value), unit, false) + (value.low !== undefined && value.high !== undefined ? ` (${told(value.low, unit, false)} to ${told(value.high, unit, false)})` : "");
    case "less":
      return told(lessControl(value), unit, true);
    case "p":
      return (value.p_adjusted ?? value.p)?.toFixed(3) ?? "–";
    case "random":
    case "direction":
    case "test":
      return told(value[column], unit, false);
    default:
      return "";
  }
}
