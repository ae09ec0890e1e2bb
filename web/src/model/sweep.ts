/** A sweep's numbers as its page shows them: less the control or not, of all items or of one. */

import type { SweepCell, SweepDoc, SweepMeasure, SweepOutcome, SweepValue } from "../contract.ts";
import { change } from "./numbers.ts";

export interface View {
  measure: number;
  less: boolean; // take away what the control does
  item?: number | undefined; // one item only
}

export interface Shown {
  value: number | undefined; // undefined: not patched, or not known of this item
  muted: boolean; // not told apart from the control
}

/** What a cell's colour and number are under a view. */
export function shown(cell: SweepCell, view: View, doc: SweepDoc): Shown {
  const value = cell.values[view.measure] as SweepValue;
  if (view.item !== undefined) return { value: ofItem(cell, view.item, doc, view.measure), muted: false };
  return { value: view.less ? lessControl(value) : measured(value), muted: !value.stands_out };
}

/** The value of a cell; undefined where it was not patched. */
export function measured({ value }: { value?: number | null }): number | undefined {
  return value ?? undefined;
}

/** The value less that of the control, where there is one. */
export function lessControl(value: SweepValue): number | undefined {
  const own = measured(value);
  return own === undefined ? undefined : own - (value.random ?? 0);
}

/** What the control of a measure is, for short: other components drawn at random, or simply all others. */
export function controlOf({ control }: SweepMeasure): string {
  return control === "other cells" ? "the other cells" : control;
}

function ofItem(cell: SweepCell, item: number, doc: SweepDoc, measure: number): number | undefined {
  const outcome = cell.outcomes.find((one) => one.item === item);
  if (!outcome) return undefined;
  if (outcome.change !== undefined) return outcome.change;
  const restored = outcome.verdict === "restored";
  const gone = restored || outcome.verdict === "resolved" || outcome.verdict === "collapsed";
  return Number(doc.measures[measure]?.name === "restored" ? restored : gone);
}

/** The end of the colour scale: 1 of shares, else the largest value there is. */
export function reach(doc: SweepDoc, view: View): number {
  if (doc.measures[view.measure]?.unit === "share") return 1;
  return Math.max(1e-9, ...doc.cells.map((cell) => Math.abs(shown(cell, view, doc).value ?? 0)));
}

/** A value as the page writes it. */
export function told(value: number | undefined, unit: string, signed: boolean): string {
  if (value === undefined) return "–";
  if (unit !== "share") return change(value);
  const percent = Math.round(100 * value);
  const sign = percent < 0 ? "−" : signed && percent > 0 ? "+" : "";
  return `${sign}${Math.abs(percent)} %`;
}

export type Column = "label" | "value" | "less" | "random" | "direction" | "p" | "test" | "price";

/** Of changes either way the size counts. */
export function ordersBySize(doc: SweepDoc, measure: number, by: Column): boolean {
  return (by === "less" || by === "value") && doc.measures[measure]?.unit !== "share";
}

/** The cells in the order of a column, missing numbers last. */
export function sorted(doc: SweepDoc, measure: number, by: Column, down: boolean): number[] {
  const either = ordersBySize(doc, measure, by);
  const size = (number: number | undefined) => (number !== undefined && either ? Math.abs(number) : number);
  const key = (cell: SweepCell): number | string | undefined => {
    const value = cell.values[measure] as SweepValue;
    switch (by) {
      case "label":
        return cell.label;
      case "less":
        return size(lessControl(value));
      case "value":
        return size(measured(value));
      case "p":
        return value.p_adjusted ?? value.p;
      case "price":
        return cell.price;
      default:
        return value[by];
    }
  };
  const keys = doc.cells.map(key);
  return doc.cells
    .map((_, i) => i)
    .sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined) || a - b;
      const order = typeof x === "string" ? x.localeCompare(String(y), "en", { numeric: true }) : x - Number(y);
      return (down ? -order : order) || a - b;
    });
}

/** Outcomes, those first in which something happened. */
export function byWeight(outcomes: SweepOutcome[]): SweepOutcome[] {
  const weight = (one: SweepOutcome) =>
    one.change !== undefined ? Math.abs(one.change) : ["unchanged", "collapsed", "resolved", "restored"].indexOf(one.verdict ?? "unchanged");
  return outcomes.toSorted((a, b) => weight(b) - weight(a) || a.item - b.item);
}
