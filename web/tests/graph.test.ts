import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import type { GraphData, GraphNode } from "../src/contract.ts";
import { called, found, Graph, placeOf } from "../src/model/graph.ts";
import { placesOf } from "../src/model/graph-boxes.ts";
import { differences, onlyHere } from "../src/model/graph-compare.ts";
import { boxesOf, bundles, grouped, suggestedGroups } from "../src/model/graph-groups.ts";
import { apart, layoutOf, nearest, neighbour } from "../src/model/graph-layout.ts";
import { pathInfluence, prune, threshold, usualShare } from "../src/model/graph-pruning.ts";
import { annotationsIn, annotationsOf, hashWith, heldIn, NOTHING, positionOf, pythonOf, quoted, sameHeld, shareAt } from "../src/model/graph-state.ts";

const packed = (values: number[]) => ({
  dtype: "f32" as const,
  shape: [values.length],
  scale: 1,
  offset: 0,
  data: Buffer.from(new Float32Array(values).buffer).toString("base64"),
});

type Edge = [source: string, target: string, weight: number];

function made(nodes: Partial<GraphNode>[], edges: Edge[], more: Partial<GraphData> = {}): Graph {
  const ids = nodes.map(({ id }) => id);
  const mass = (id: string) => edges.filter(([, target]) => target === id).reduce((sum, [, , weight]) => sum + Math.abs(weight), 0);
  const full = nodes.map((node): GraphNode => {
    const inputs = mass(node.id!) ? { value: 1, rest: 0, rest_mass: 0, mass: mass(node.id!) } : undefined;
    return { kind: "feature", stream: "text", layer: 0, label: node.id!, influence: 0.1, ...(inputs && { inputs }), ...node } as GraphNode;
  });
  const data = {
    model: "m", dictionary: "neurons", text: "", streams: [{ name: "text", layers: 2, hears: false }],
    tokens: [{ text: " a", prompt: false }, { text: " b", prompt: false }], segments: [],
    targets: [{ node: ids.indexOf("target/0"), text: " c", weight: 1, position: 1 }],
    nodes: full,
    edges: { source: packed(edges.map(([s]) => ids.indexOf(s))), target: packed(edges.map(([, t]) => ids.indexOf(t))), weight: packed(edges.map(([, , w]) => w)) },
    splits: [], features: [], checks: [], summary: [], annotations: NOTHING,
    left_out: { active_features: 9, traced_features: 5, shown_features: 4, traced_edges: 20, shown_edges: edges.length, node_share: 0.95, edge_share: 0.98, rest: 0, errors: 0 },
    made: { command: "otoscope trace", python: "graph = ..." },
    ...more,
  } as GraphData;
  return new Graph(data);
}

const small = () =>
  made(
    [
      { id: "f1", layer: 1, position: 1 }, { id: "f2", layer: 1, position: 1 }, { id: "f3", layer: 0, position: 0 },
      { id: "token/0", kind: "token", layer: -1, position: 0, label: " a" }, { id: "target/0", kind: "target", layer: 2, position: 1, label: " c" },
    ],
    [["f1", "target/0", 3], ["f2", "target/0", -1], ["f3", "f1", 2], ["token/0", "f1", -2], ["token/0", "f3", 1], ["token/0", "f2", 1]],
  );

test("shares are of the absolute input, and lists are strongest first", () => {
  const graph = small();
  const target = graph.index("target/0")!;
  assert.deepEqual([...graph.into[target]!].map((edge) => graph.share[edge]), [0.75, -0.25]);
  assert.deepEqual(graph.rest(graph.index("f1")!), { share: 0, size: 0 });
});

test("the bias of the output lies in no layer", () => {
  const graph = made(
    [{ id: "bias/1", kind: "bias", layer: 1 }, { id: "bias/2", kind: "bias", layer: 2 }, { id: "target/0", kind: "target", layer: 2, position: 1, label: " c" }],
    [["bias/1", "target/0", 1], ["bias/2", "target/0", 1]],
  );
  assert.deepEqual(["bias/1", "bias/2"].map((id) => placeOf(graph, graph.index(id)!)), ["layer 1, bias", "bias"]);
});

test("influence is the sum over all paths", () => {
  const graph = small();
  const influence = pathInfluence(graph, graph.share.map(Math.abs), graph.start);
  assert.deepEqual([...influence], [0.75, 0.25, 0.375, 1, 0]);
});

test("a threshold keeps the fewest that reach a share, and ties", () => {
  const near = (value: number, wanted: number) => assert.ok(Math.abs(value - wanted) < 1e-8 && value <= wanted);
  near(threshold(Float64Array.of(1, 4, 3, 2), 0.7), 3);
  assert.equal(threshold(Float64Array.of(), 0.5), 0);
  near(threshold(Float64Array.of(1, 1), 0.1), 1);
});

test("pruning keeps sources and targets, and drops what leads nowhere", () => {
  const graph = small();
  const shown = prune(graph, 0.7, 1);
  assert.deepEqual([...shown.node], [1, 0, 0, 1, 1]);
  assert.deepEqual([shown.nodes, shown.edges], [3, 2]);
  const all = prune(graph, 1, 1);
  assert.deepEqual([all.nodes, all.edges], [5, 6]);
  assert.ok(usualShare(graph) <= 1);
});

test("pruning is what it is in Python", () => {
  const golden = JSON.parse(readFileSync("tests/golden/graph.json", "utf8")) as { graph: GraphData; cases: { shares: [number, number]; nodes: string[]; edges: number }[] };
  const graph = new Graph(golden.graph);
  for (const { shares, nodes, edges } of golden.cases) {
    const shown = prune(graph, ...shares);
    assert.deepEqual(graph.data.nodes.filter((_, i) => shown.node[i]).map(({ id }) => id), nodes);
    assert.equal(shown.edges, edges);
  }
});

test("layers rise, tokens go right, and each node is found where it is drawn", () => {
  const graph = small();
  const shown = new Uint8Array(5).fill(1);
  const layout = layoutOf(graph, shown, 600);
  const [f1, , f3, token, target] = [0, 1, 2, 3, 4];
  assert.ok(layout.y[target]! < layout.y[f1]! && layout.y[f1]! < layout.y[f3]! && layout.y[f3]! < layout.y[token]!);
  assert.ok(layout.x[f3]! < layout.x[f1]!);
  for (let i = 0; i < 5; i++) assert.equal(nearest(layout, shown, layout.x[i]! + 2, layout.y[i]! - 2), i);
  assert.equal(nearest(layout, shown, 5, 5), -1);
  assert.equal(neighbour(layout, shown, target, "ArrowDown") <= 1, true);
  assert.equal(neighbour(layout, shown, target, "ArrowUp"), target);
});

test("segments of sound lie on the axis of time, and tokens near their words", () => {
  const graph = made(
    [{ id: "frame/0", kind: "frame", layer: 4, segment: 0 }, { id: "frame/1", kind: "frame", layer: 4, segment: 1 }, { id: "target/0", kind: "target", layer: 2, position: 1, start: 1, end: 2 }],
    [["frame/0", "target/0", 1], ["frame/1", "target/0", 2]],
    { segments: [{ label: "a", start: 0, end: 1, kind: "word" }, { label: "b", start: 1, end: 2, kind: "word" }], tokens: [{ text: "<s>", prompt: true }, { text: " a", prompt: false, start: 0, end: 1 }] },
  );
  const layout = layoutOf(graph, new Uint8Array(3).fill(1), 800);
  assert.equal(layout.x[0], Math.fround(layout.left + layout.axis!.x(0.5)));
  assert.equal(layout.x[2], Math.fround(layout.left + layout.axis!.x(1.5)));
  assert.ok(Math.abs(layout.tokens[1]!.x - layout.x[0]!) < 1);
});

test("places are kept apart and as near to the wanted ones as can be", () => {
  assert.deepEqual(apart([10, 10, 10], 4), [6, 10, 14]);
  assert.deepEqual(apart([10, 50], 4), [10, 50]);
  assert.deepEqual(apart([], 4), []);
});

test("edges between groups are shares of all that the target group was given", () => {
  const graph = small();
  const boxes = boxesOf(graph, ["target/0", "f3"], [{ label: "both", nodes: ["f1", "f2"] }]);
  const links = bundles(graph, boxes);
  const share = (a: string, b: string) => links.find((l) => boxes[l.source]!.key === a && boxes[l.target]!.key === b)?.share;
  assert.equal(share("supernode/f1", "target/0"), 0.5);
  assert.equal(share("f3", "supernode/f1"), 2 / 5);
});

test("a node is in one group at most, and groups of one dissolve", () => {
  assert.deepEqual(grouped([{ label: "x", nodes: ["a", "b"] }], ["b", "c"], "y"), [{ label: "y", nodes: ["b", "c"] }]);
});

test("nodes with alike signed inputs and outputs are suggested as groups, opposite ones are not", () => {
  const graph = made(
    [{ id: "a", layer: 1 }, { id: "b", layer: 1 }, { id: "c", layer: 1 }, { id: "s", layer: 0 }, { id: "target/0", kind: "target", layer: 2 }],
    [["s", "a", 1], ["s", "b", 1], ["s", "c", -1], ["a", "target/0", 1], ["b", "target/0", 2], ["c", "target/0", -1]],
  );
  assert.deepEqual(suggestedGroups(graph, [0, 1, 2]), [[0, 1]]);
});

test("boxes stand by depth and time, unless somebody moved them", () => {
  const graph = small();
  const boxes = boxesOf(graph, ["target/0", "f1", "f3"], []);
  const places = placesOf(graph, boxes, { ...NOTHING, places: { f3: [0.1, 0.9] } });
  assert.ok(places[0]!.y < places[1]!.y);
  assert.deepEqual(places[2], { x: 0.1, y: 0.9 });
});

test("search finds names that people gave, tokens and ids", () => {
  const graph = small();
  const annotations = { ...NOTHING, labels: { f2: "Plural nouns" } };
  assert.deepEqual(found(graph, "plural", annotations), [1]);
  assert.deepEqual(found(graph, "f3", annotations), [2]);
  assert.deepEqual(found(graph, "  ", annotations), []);
  assert.equal(called(graph.node(1), annotations), "Plural nouns");
  assert.equal(called({ ...graph.node(0), id: "__proto__" }, NOTHING), "f1");
});

test("two graphs are compared by ids", () => {
  const [a, b] = [small(), made([{ id: "f1", layer: 1, influence: 0.9 }, { id: "target/0", kind: "target", layer: 2 }], [["f1", "target/0", 1]])];
  assert.equal(differences(a, b)[0]!.id, "f1");
  assert.deepEqual([...onlyHere(a, b)], [0, 1, 1, 1, 0]);
});

test("a view survives the address, and a broken address changes nothing", () => {
  const { data } = small();
  const read = (hash: string) => heldIn(hash, [data], 0.8, [annotationsOf(data)]);
  const held = { ...read(""), node: "f1", nodes: 0.9, written: [{ ...NOTHING, pins: ["f1"], labels: { f1: "</script>&#=" } }] };
  assert.deepEqual(read(hashWith("", held, [data])), held);
  assert.equal(read("#node=nowhere&nodes=7&notes={").node, "target/0");
  assert.equal(read("#nodes=7").nodes, 0.8);
  assert.equal(annotationsIn("[]")?.pins.length, 0);
  assert.equal(annotationsIn('{"supernodes":[{"label":1,"nodes":["a",2,"b"]}]}')?.supernodes[0]?.nodes.length, 2);
  assert.ok(Math.abs(shareAt(positionOf(0.93)) - 0.93) < 1e-4);
});

test("the address keeps what others wrote into it, what is on either graph, and that all was cleared", () => {
  const [a, b] = [small().data, small().data];
  a.annotations = { ...NOTHING, pins: ["f1"] };
  const first = heldIn("", [a, b], 0.8, [a, b].map(annotationsOf));
  assert.equal(new URLSearchParams(hashWith("", first, [a, b]).slice(1)).has("notes"), false);
  const held = { ...first, written: [NOTHING, { ...NOTHING, pins: ["f2"] }] };
  const hash = hashWith("#feature=encoder:3:604=0&zero=decoder_blocks.0.mlp", held, [a, b]);
  assert.match(hash, /^#feature=.*&zero=decoder_blocks\.0\.mlp&/);
  assert.deepEqual(heldIn(hash, [a, b], 0.8, [a, b].map(annotationsOf)).written, held.written);
  assert.ok(sameHeld(hash, hash.replace("mlp", "attn")) && !sameHeld(hash, hash.replace("target", "f")));
});

test("where the host keeps what is written, an address neither tells nor undoes it", () => {
  const { data } = small();
  const now = { ...NOTHING, pins: ["f2"] };
  const held = heldIn('#notes={"pins":["f1"]}', [data], 0.8, [now], false);
  assert.deepEqual(held.written, [now]);
  assert.doesNotMatch(hashWith("", held, [data], false), /notes/);
});

test("Python that is copied names what is chosen and pinned, whatever the names hold", () => {
  const { data } = small();
  const text = pythonOf(data, { node: "f1", nodes: 0.9, edges: 0.8, annotations: { ...NOTHING, pins: ["f1"] } });
  assert.match(text, /graph\.prune\(0\.95, 0\.98\)\.graph\.prune\(0\.9, 0\.8\)\.graph/);
  assert.match(text, /graph\.row\("f1"\)/);
  assert.match(text, /graph\.subgraph\(\["f1"\]\)/);
  assert.equal(quoted('a"\n\u2028'), '"a\\"\\n\\u2028"');
});
