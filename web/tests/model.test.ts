import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ablation, Accounts, Component, ExplainDoc, PackedArray } from "../src/contract.ts";
import { AccountBook } from "../src/model/accounts.ts";
import { Changes, heads, wholeComponents } from "../src/model/ablation.ts";
import { extent, halfToNumber, unpack } from "../src/model/arrays.ts";
import { change, decimal, probability, shortened, visible } from "../src/model/numbers.ts";
import { shownEnd, TimeAxis } from "../src/model/time.ts";
import { addressWith } from "../src/model/address.ts";
import { resourceUrl } from "../src/model/resources.ts";
import { initialToken, tokenInHash } from "../src/state.ts";

const f32 = (values: number[], shape: number[]): PackedArray => ({
  dtype: "f32",
  shape,
  scale: 1,
  offset: 0,
  data: Buffer.from(new Float32Array(values).buffer).toString("base64"),
});

test("half-precision bits become the numbers they stand for", () => {
  const known: [number, number][] = [
    [0x0000, 0],
    [0x3c00, 1],
    [0xc000, -2],
    [0x3555, 0.333251953125],
    [0x0001, 2 ** -24],
    [0x7bff, 65504],
  ];
  for (const [bits, value] of known) assert.equal(halfToNumber(bits), value);
});

test("a quantised array is scaled and shifted back", () => {
  const array: PackedArray = { dtype: "u8", shape: [3], scale: 0.5, offset: -1, data: "AAL/" };
  assert.deepEqual([...unpack(array)], [-1, 0, 126.5]);
  assert.deepEqual(extent(unpack(array)), [-1, 126.5]);
});

test("numbers read well at both ends", () => {
  assert.deepEqual([0, 0.0004, 0.5, 0.9996, 1].map(probability), [".000", "<.001", ".500", ">.999", "1.000"]);
  assert.deepEqual([-12.34, -0.5, 0.001, 2].map(change), ["−12.3", "−0.50", "0", "+2.00"]);
});

test("a plain number has a true minus, and none before a zero", () => {
  assert.deepEqual([decimal(-0.001), decimal(-1.5), decimal(-0.04, 1), decimal(21, 1)], ["0.00", "−1.50", "0.0", "21.0"]);
});

test("labels show their leading spaces and are never cut inside a character", () => {
  assert.equal(visible("  a b"), "␣␣a b");
  assert.equal(visible(""), "∅");
  assert.equal(shortened("👂👂👂", 2), "👂…");
  assert.equal(shortened("👂👂", 2), "👂👂");
});

test("pixels and seconds are each other's inverse, and ticks are round", () => {
  const axis = new TimeAxis(0, 11, 990);
  assert.equal(axis.x(5.5), 495);
  assert.equal(axis.t(495), 5.5);
  assert.equal(axis.t(-50), 0);
  assert.deepEqual(axis.ticks(70), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

const part = (layer: number, head?: number): Component => ({
  id: `decoder_blocks.${layer}.cross_attn`,
  label: `D${layer}`,
  stack: "decoder",
  layer,
  part: "cross_attn",
  ...(head === undefined ? {} : { head }),
});
const ablation: Ablation = {
  controls: [],
  components: [part(0), part(1), part(0, 0), part(1, 1)],
  change: f32([-1, 0, -3, 4, 0, 0.5, 0, 0], [4, 2]),
};

test("components are arranged with the last layer on top and unmeasured cells missing", () => {
  const whole = wholeComponents(ablation, "decoder");
  assert.deepEqual(whole.layers, [1, 0]);
  assert.equal(whole.cell(1, 0)?.row, 1);
  const [grid] = heads(ablation, "decoder");
  assert.deepEqual(grid?.columns, [0, 1]);
  assert.equal(grid?.cell(0, 0)?.row, 2);
  assert.equal(grid?.cell(0, 1), undefined);
  assert.deepEqual(wholeComponents(ablation, "encoder").layers, []);
});

test("the strongest components are those with the largest mean size of change", () => {
  const changes = new Changes(ablation);
  assert.deepEqual(changes.strongest(2).map(({ row }) => row), [1, 0]);
  assert.deepEqual(changes.overall(1), { mean: 0.5, size: 3.5, worst: 0 });
  assert.equal(changes.reach(0), 3);
});

test("the address names a token only when there is one", () => {
  assert.equal(tokenInHash(addressWith("", { token: "3" }), 4), 3);
  for (const hash of ["#token=4", "#token=-1", "#token=1e1", "#token=", "", "#x=1"]) {
    assert.equal(tokenInHash(hash, 4), undefined);
  }
});

test("without an address the page opens at the document's choice, else at the least certain word's least certain token", () => {
  const tokens = [0.1, 0.9, 0.5, 0.4].map((p) => ({ p }));
  const words = [
    { p: 0.5, first_token: 0, last_token: 1 },
    { p: 0.45, first_token: 2, last_token: 3 },
  ];
  const doc = { transcript: { tokens, words } } as unknown as ExplainDoc;
  assert.equal(initialToken(doc, ""), 3);
  assert.equal(initialToken({ ...doc, selected_token: 2 }, ""), 2);
  assert.equal(initialToken({ ...doc, selected_token: 2 }, "#token=0"), 0);
  assert.equal(initialToken({ transcript: { tokens: [{ p: 0.5 }], words: [] } } as unknown as ExplainDoc, ""), 0);
  assert.equal(initialToken({ transcript: { tokens: [], words: [] } } as unknown as ExplainDoc, ""), -1);
});

test("an account pools spans into words, pauses and padding, and its shares are of what speaks for the token", () => {
  const doc = {
    audio: { duration: 1 },
    transcript: { words: [{ text: " a", start: 0.2, end: 0.6 }] },
  } as unknown as ExplainDoc;
  const spans: [number, number][] = [[0, 0.2], [0.2, 0.4], [0.4, 0.6], [0.6, 1], [1, 30]];
  const accounts: Accounts = { spans, sound: f32([0, 2, 1, -1, 1], [1, 5]), text: f32([0], [1, 1]), tokens: [] };
  const found = new AccountBook(accounts, doc).stretches(0);
  assert.deepEqual(found.map(({ kind, label }) => [kind, label]), [["pause", ""], ["word", "a"], ["pause", ""], ["padding", ""]]);
  assert.deepEqual(found.map(({ value }) => value), [0, 3, -1, 1]);
  assert.deepEqual(found.map(({ share }) => share), [0, 0.75, 0, 0.25]);
});

test("what is said in any case is biases and positions together", () => {
  const one = { value: 9, sound: 6, text: 1, prompt: 0, positions: -1, biases: 3, errors: 0 };
  const accounts = { spans: [], sound: f32([], [1, 0]), text: f32([0], [1, 1]), tokens: [one] } as unknown as Accounts;
  const found = new AccountBook(accounts, {} as ExplainDoc).sources(0);
  assert.deepEqual(found.map(({ value }) => value), [6, 1, 2]);
  assert.equal(found.at(-1)?.name, "said in any case (biases and positions)");
});

test("the axis ends a little after the clip where there is padding, and a part of it keeps its times", () => {
  assert.equal(shownEnd(30, 30), 30);
  assert.ok(shownEnd(11, 30) > 11 && shownEnd(11, 30) <= 11.6);
  const part = new TimeAxis(0, 10, 1000).part(500, 100);
  assert.deepEqual([part.t0, part.t1, part.width], [5, 6, 100]);
});

test("a carried file has one URL, however often it is asked for", () => {
  const doc = { resources: { audio: { media_type: "audio/wav", data: "AAAA" } } };
  const url = resourceUrl(doc, "audio");
  assert.match(url!, /^blob:/);
  assert.equal(resourceUrl({ resources: { ...doc.resources } }, "audio"), url);
  assert.equal(resourceUrl(doc, "toString"), undefined);
});
