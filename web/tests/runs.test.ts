import assert from "node:assert/strict";
import { test } from "node:test";
import type { Doc } from "../src/host.ts";
import { runsInPath } from "../src/hosts/server.ts";
import { areApart, matchingHash } from "../src/model/following.ts";
import { clock, difference, kindOf, matching, orderBy, type Run, sorted, when } from "../src/model/runs.ts";
import { wavOf } from "../src/model/wav.ts";

function run(title: string, more: Partial<Run> = {}): Run {
  return { id: title, path: title, form: "page", made: 0, size: 1, kind: "explain", title, model: "m", text: "", duration: null, flags: [], broken: null, ...more };
}

const RUNS = [
  run("b10", { made: 3, text: "Ask not what" }),
  run("B9", { made: 1, duration: 4, note: "listen AGAIN" }),
  run("a", { made: 2, duration: 30, flags: ["mended"] }),
];

const titles = (runs: readonly Run[]) => runs.map((one) => one.title);

test("search finds runs that hold every word, wherever it is", () => {
  assert.deepEqual(titles(matching(RUNS, " ")), ["b10", "B9", "a"]);
  assert.deepEqual(titles(matching(RUNS, "not ASK")), ["b10"]);
  assert.deepEqual(titles(matching(RUNS, "again")), ["B9"]);
  assert.deepEqual(titles(matching(RUNS, "mended explain")), ["a"]);
  assert.deepEqual(titles(matching(RUNS, "ask mended")), []);
});

test("names are sorted as people count, and what has no sound comes after what has", () => {
  assert.deepEqual(titles(sorted(RUNS, { by: "title", falling: false })), ["a", "B9", "b10"]);
  assert.deepEqual(titles(sorted(RUNS, { by: "made", falling: true })), ["b10", "a", "B9"]);
  assert.deepEqual(titles(sorted(RUNS, { by: "duration", falling: true })), ["a", "B9", "b10"]);
});

test("a column chosen again turns round; dates begin with the newest", () => {
  assert.deepEqual(orderBy("made", { by: "title", falling: false }), { by: "made", falling: true });
  assert.deepEqual(orderBy("made", { by: "made", falling: true }), { by: "made", falling: false });
  assert.deepEqual(orderBy("title", { by: "made", falling: true }), { by: "title", falling: false });
});

test("times are written as people write them", () => {
  assert.equal(clock(75.4), "1:15");
  const now = new Date(2026, 10, 26, 12, 0);
  assert.equal(when(new Date(2026, 10, 26, 9, 5).getTime() / 1000, now), "today 09:05");
  assert.match(when(new Date(2025, 0, 2).getTime() / 1000, now), /2 Jan 2025/);
});

test("of two texts the words are marked that the other has not", () => {
  const [left, right] = difference("And so, my fellow", "And so my dear fellow Americans");
  const marked = (words: { text: string; same: boolean }[]) => words.filter((word) => !word.same).map((word) => word.text);
  assert.deepEqual(marked(left), []);
  assert.deepEqual(marked(right), ["dear", "Americans"]);
  assert.equal(left.map((word) => word.text).join(" "), "And so, my fellow");
  assert.deepEqual(difference("", ""), [[], []]);
});

test("an address names a run by its id alone", () => {
  assert.deepEqual(runsInPath("/run/0af9"), ["0af9", ""]);
  assert.deepEqual(runsInPath("/beside/0af9"), ["0af9", ""]);
  assert.deepEqual(runsInPath("/compare/0af9/1b"), ["0af9", "1b"]);
  for (const path of ["/", "/run/", "/run/../x", "/run/xyz", "/folder/0af9"]) assert.deepEqual(runsInPath(path), ["", ""]);
});

function heard(...spans: [number, number][]): Doc {
  return { kind: "explain", transcript: { tokens: spans.map(([start, end], index) => ({ index, start, end })) } } as unknown as Doc;
}

test("a token is found again in another run by its time", () => {
  const [a, b] = [heard([0, 1], [1, 2], [2, 3]), heard([0, 0.5], [0.5, 1], [1, 1.4], [1.4, 3])];
  assert.equal(matchingHash("#token=0&head=1", a, b), "#token=0&head=1");
  assert.equal(matchingHash("#token=2", a, b), "#token=3");
  assert.equal(matchingHash("#token=3", b, a), "#token=2");
  assert.equal(matchingHash("#feature=1.2", a, b), "#feature=1.2");
  assert.equal(matchingHash("#token=9", a, b), "#token=9");
});

test("documents of two recordings or texts are told apart, and others are not", () => {
  const clip = (file: string, duration: number) => ({ kind: "explain", audio: { file, duration } }) as unknown as Doc;
  const lens = (title: string, more = {}) => ({ kind: "lens", title, ...more }) as unknown as Doc;
  assert.equal(areApart([clip("a.wav", 3), clip("a.wav", 3)]), false);
  assert.equal(areApart([clip("a.wav", 3), clip("b.wav", 3)]), true);
  assert.equal(areApart([clip("a.wav", 3), clip("a.wav", 4)]), true);
  assert.equal(areApart([clip("a.wav", 3), lens("a.wav · tiny")]), false);
  assert.equal(areApart([lens("x · tiny", { is_prompt: true, text: "x" }), lens("x · base", { is_prompt: true, text: "y" })]), true);
});

test("kinds are called as the commands that make them, which finds them, too", () => {
  assert.deepEqual(["sweep", "graph", "explain"].map((kind) => kindOf(run("a", { kind }))), ["patch", "trace", "explain"]);
  assert.equal(matching([run("a", { kind: "sweep" })], "patch").length, 1);
});

test("a WAV file holds its samples, clipped, in 16 bits", () => {
  const bytes = wavOf([new Float32Array([0, 1, -1]), new Float32Array([2])], 48_000);
  const view = new DataView(bytes.buffer);
  assert.equal(new TextDecoder().decode(bytes.slice(0, 4)), "RIFF");
  assert.equal(view.getUint32(4, true), bytes.length - 8);
  assert.equal(view.getUint32(24, true), 48_000);
  assert.deepEqual([0, 1, 2, 3].map((i) => view.getInt16(44 + 2 * i, true)), [0, 32767, -32767, 32767]);
});
