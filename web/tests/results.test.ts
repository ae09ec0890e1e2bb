import assert from "node:assert/strict";
import { test } from "node:test";
import type { LensToken, SweepCell, SweepDoc, SweepValue } from "../src/contract.ts";
import { escaped, SvgPen } from "../src/draw/pen.ts";
import { addressWith, indexInAddress, oneInAddress } from "../src/model/address.ts";
import { candidate, tintOf, trajectory } from "../src/model/lens.ts";
import { byWeight, controlOf, reach, shown, sorted, told } from "../src/model/sweep.ts";

const value = (v: number, more: Partial<SweepValue> = {}): SweepValue => ({ value: v, n: 4, stands_out: false, ...more });
const cell = (label: string, v: SweepValue, more: Partial<SweepCell> = {}): SweepCell => ({
  grid: 0, row: 0, column: 0, component: label, label, winner: false, values: [v], outcomes: [], ...more,
});
const sweep = {
  measures: [{ name: "restored", title: "", unit: "share", control: "random components", random: "", stands_out: "" }],
  cells: [
    cell("DL10", value(0.5, { random: 0.4, p_adjusted: 0.2 })),
    cell("DL2", value(0.9, { random: 0.1, stands_out: true }), { price: 0.3, outcomes: [{ item: 1, verdict: "resolved" }] }),
    cell("DL3", value(0.6)),
  ],
} as unknown as SweepDoc;

test("an address keeps what else is in it", () => {
  assert.equal(addressWith("#token=5&lens=rank", { token: "6" }), "#token=6&lens=rank");
  assert.equal(addressWith("#token=5&lens=rank", { lens: undefined }), "#token=5");
  assert.equal(oneInAddress("#lens=__proto__", "lens", ["a", "b"]), "a");
  assert.equal(indexInAddress("#cell=3", "cell", 3), undefined);
  assert.equal(indexInAddress("#cell=2", "cell", 3), 2);
});

test("a cell's value is less the control, and muted unless it stands out", () => {
  const [first, second] = sweep.cells as [SweepCell, SweepCell];
  const view = { measure: 0, less: true };
  assert.ok(Math.abs(shown(first, view, sweep).value! - 0.1) < 1e-9);
  assert.equal(shown(first, view, sweep).muted, true);
  assert.equal(shown(second, { ...view, less: false }, sweep).value, 0.9);
  assert.equal(shown(second, view, sweep).muted, false);
  assert.equal(reach(sweep, view), 1);
});

test("of one item a cell shows what became of it", () => {
  const [first, second] = sweep.cells as [SweepCell, SweepCell];
  assert.equal(shown(second, { measure: 0, less: true, item: 1 }, sweep).value, 0); // resolved, not restored
  assert.equal(shown(first, { measure: 0, less: true, item: 1 }, sweep).value, undefined);
});

test("tables sort by numbers, by labels as people count, and missing values come last", () => {
  assert.deepEqual(sorted(sweep, 0, "less", true), [1, 2, 0]);
  assert.deepEqual(sorted(sweep, 0, "label", false), [1, 2, 0]);
  assert.deepEqual(sorted(sweep, 0, "price", true), [1, 0, 2]);
  assert.deepEqual(sorted(sweep, 0, "p", false), [0, 1, 2]);
});

test("a cell that was not patched has no number and comes last either way", () => {
  const { value: _, ...missing } = value(0, { n: 0 });
  const cells = [cell("DL0", missing as SweepValue), cell("DL1", value(-0.2, { random: 0.1 })), cell("DL2", value(0.1))];
  const doc = { ...sweep, cells } as SweepDoc;
  assert.equal(shown(cells[0]!, { measure: 0, less: true }, doc).value, undefined);
  for (const by of ["value", "less"] as const) {
    assert.equal(sorted(doc, 0, by, true).at(-1), 0);
    assert.equal(sorted(doc, 0, by, false).at(-1), 0);
  }
});

test("a control is called random only where it is", () => {
  const measure = sweep.measures[0]!;
  assert.equal(controlOf({ ...measure, control: "random components" }), "random components");
  assert.equal(controlOf({ ...measure, control: "other cells" }), "the other cells");
});

test("shares are told in per cent and changes with a sign", () => {
  assert.equal(told(0.254, "share", false), "25 %");
  assert.equal(told(-0.3, "share", true), "−30 %");
  assert.equal(told(1.5, "nats", true), "+1.50");
  assert.equal(told(undefined, "share", true), "–");
});

test("outcomes in which something happened come first", () => {
  const order = byWeight([{ item: 0, verdict: "unchanged" }, { item: 1, verdict: "restored" }, { item: 2, change: -3 }, { item: 3, change: 0.1 }]);
  assert.deepEqual(order.map((one) => one.item).slice(-1), [0]);
});

test("a lens is tinted by probability, rank on a logarithmic scale, or entropy", () => {
  const layer = { layer: 0, top: [], p_final: 0.3, rank_final: 999, entropy: 2 };
  assert.equal(tintOf(layer, "probability", 4), 0.3);
  assert.ok(Math.abs(tintOf(layer, "rank", 4)) < 1e-9);
  assert.equal(tintOf({ ...layer, rank_final: 0 }, "rank", 4), 1);
  assert.equal(tintOf(layer, "entropy", 4), 0.5);
});

test("a candidate has a line where it is among the best", () => {
  const token: LensToken = {
    index: 0,
    layers: [0, 1, 2].map((layer) => ({ layer, p_final: layer / 4, rank_final: 0, entropy: 1, top: layer === 1 ? [] : [{ id: 3, text: "a", p: 0.5 }, { id: 7, text: "b", p: 0.1 * (layer + 1) }] })),
  };
  assert.deepEqual(trajectory(token, "probability").map(({ y }) => y), [0, 0.25, 0.5]);
  assert.deepEqual(candidate(token, 7, "rank"), [{ x: 0, y: 1 }, { x: 2, y: 1 }]);
  assert.deepEqual(candidate(token, 7, "entropy"), []);
});

test("what a pen draws is written down as SVG, hostile text as text", () => {
  const pen = new SvgPen();
  pen.save();
  pen.translate(10, 5);
  pen.fillStyle = "#123456";
  pen.fillRect(0, 0, 4, -2);
  pen.fillText('</text><script>"&\u0000', 1, 1);
  pen.restore();
  pen.beginPath();
  pen.arc(0, 0, 1, 0, 2 * Math.PI);
  pen.stroke();
  assert.equal(pen.parts[0], '<rect x="10" y="3" width="4" height="2" fill="#123456"/>');
  assert.match(pen.parts[1]!, />&#60;\/text&#62;&#60;script&#62;&#34;&#38;<\/text>$/);
  assert.match(pen.parts[2]!, /^<path d="M1 0A1 1 0 0 1 -1 0A1 1 0 0 1 1 0" fill="none" stroke="#000"/);
  assert.equal(escaped("\ud800a"), "a");
});
