/** Where nodes are drawn: layers from bottom to top, tokens and segments of sound from left to right, on the axis of time if there is one. */

import type { GraphData, GraphNode } from "../contract.ts";
import type { Graph } from "./graph.ts";
import { TimeAxis } from "./time.ts";

export interface Band {
  name: string; // "target", "L3", "tokens", "heard", "sound"
  stack: "out" | "writing" | "hearing" | "in";
  y: number; // centre
  height: number;
}

export interface Column {
  x: number; // centre
  width: number; // room for nodes
}

export interface Layout {
  width: number;
  height: number;
  bands: Band[]; // from top to bottom
  tokens: Column[];
  segments: Column[];
  axis: TimeAxis | undefined; // of the sound, moved right by `left`
  left: number;
  x: Float32Array;
  y: Float32Array;
  radius: Float32Array;
}

const STEP = 11; // between nodes of one place
const NAMES = 58; // room for the bands' names
const LOOSE = 30; // room for what is at no place
const PROMPT = 15; // a token of the prompt, and the least between tokens
const PADDING = 44;
const LEAST = { band: 20, empty: 12, frames: 26, out: 40 };

/** The bands of a graph from top to bottom, without heights. */
function bandsOf(data: GraphData): Pick<Band, "name" | "stack">[] {
  const writing = data.streams.filter((stream) => !stream.hears);
  const hearing = data.streams.filter((stream) => stream.hears && data.nodes.some((node) => node.stream === stream.name));
  const layers = (count: number) => Array.from({ length: count }, (_, i) => `L${count - 1 - i}`);
  const bands: Pick<Band, "name" | "stack">[] = [{ name: "output", stack: "out" }];
  for (const { layers: count } of writing) for (const name of layers(count)) bands.push({ name, stack: "writing" });
  bands.push({ name: "tokens", stack: "writing" });
  for (const { layers: count } of hearing) for (const name of layers(count)) bands.push({ name, stack: "hearing" });
  if (data.segments.length) bands.push({ name: hearing.length ? "sound" : "heard", stack: "in" });
  return bands;
}

/** The number of a node's band. */
function bandOf(node: GraphNode, bands: readonly Pick<Band, "name" | "stack">[], hears: ReadonlySet<string>): number {
  const find = (stack: Band["stack"], name?: string) => bands.findIndex((band) => band.stack === stack && (name === undefined || band.name === name));
  if (node.kind === "target") return 0;
  if (node.kind === "frame") return find("in");
  if (hears.has(node.stream)) {
    const at = node.layer < 0 ? -1 : find("hearing", `L${node.layer}`);
    return at >= 0 ? at : node.layer < 0 ? find("in") : find("hearing"); // the last norm's bias goes with the last layer
  }
  const at = node.layer < 0 ? find("writing", "tokens") : find("writing", `L${node.layer}`);
  return at >= 0 ? at : 1;
}

interface Cell {
  column: Column;
  nodes: number[];
}

/** Lays out the nodes that are shown.
 * @param width pixels that there are; more are taken where tokens or seconds need them */
export function layoutOf(graph: Graph, shown: Uint8Array, width: number): Layout {
  const { data } = graph;
  const columns = columnsOf(data, width);
  const bands = bandsOf(data);
  const hears = new Set(data.streams.filter((stream) => stream.hears).map((stream) => stream.name));
  const cells = bands.map(() => new Map<string, Cell>());
  for (let i = 0; i < graph.count; i++) {
    if (!shown[i]) continue;
    const node = graph.node(i);
    const [key, column] = placed(node, columns);
    const row = cells[bandOf(node, bands, hears)]!;
    if (!row.has(key)) row.set(key, { column, nodes: [] });
    row.get(key)!.nodes.push(i);
  }
  const [x, y, radius] = [new Float32Array(graph.count), new Float32Array(graph.count), new Float32Array(graph.count)];
  let top = 6;
  const drawn = bands.map((band, number): Band => {
    const rows = [...cells[number]!.values()].map(({ column, nodes }) => Math.ceil(nodes.length / perRow(column)));
    const least = band.stack === "out" ? LEAST.out : band.stack === "in" ? LEAST.frames : rows.length ? LEAST.band : LEAST.empty;
    const height = Math.max(least, Math.max(0, ...rows) * STEP + 9);
    const y = top + height / 2;
    top += height;
    return { ...band, y, height };
  });
  cells.forEach((row, number) => {
    for (const { column, nodes } of row.values()) spread(graph, nodes, column, drawn[number]!, x, y, radius);
  });
  return { ...columns, height: top + 6, bands: drawn, x, y, radius };
}

function perRow({ width }: Column): number {
  return Math.max(1, Math.floor(width / STEP));
}

/** The most influential in the middle of the lowest row, the others around and above it. */
function spread(graph: Graph, nodes: number[], column: Column, band: Band, x: Float32Array, y: Float32Array, radius: Float32Array): void {
  const most = perRow(column);
  const order = nodes.sort((a, b) => graph.node(b).influence - graph.node(a).influence);
  const rows = Math.ceil(order.length / most);
  order.forEach((i, rank) => {
    const row = Math.floor(rank / most);
    const inRow = Math.min(most, order.length - row * most);
    const place = rank - row * most;
    const offset = Math.ceil(place / 2) * (place % 2 ? 1 : -1) + (inRow % 2 ? 0 : -0.5);
    x[i] = column.x + offset * STEP;
    y[i] = band.y + ((rows - 1) / 2 - row) * STEP;
    radius[i] = 2.2 + 2.6 * Math.min(1, Math.sqrt(graph.node(i).influence / 0.05));
  });
}

type Columns = Pick<Layout, "width" | "tokens" | "segments" | "axis" | "left">;

function placed(node: GraphNode, columns: Columns): [string, Column] {
  if (node.kind === "target" && columns.axis && node.start !== undefined && node.end !== undefined) {
    const x = columns.left + columns.axis.x((node.start + node.end) / 2);
    return [`at ${node.start}`, { x, width: 40 }];
  }
  if (node.segment !== undefined) return [`s${node.segment}`, columns.segments[node.segment]!];
  if (node.position !== undefined && node.kind === "target") {
    const last = columns.tokens[node.position]!;
    return [`t${node.position}`, { ...last, width: 60 }];
  }
  if (node.position !== undefined) return [`t${node.position}`, columns.tokens[node.position]!];
  return ["loose", { x: NAMES + LOOSE / 2, width: LOOSE - 8 }];
}

function columnsOf(data: GraphData, width: number): Columns {
  return data.segments.length ? timedColumns(data, width) : evenColumns(data, width);
}

function evenColumns(data: GraphData, width: number): Columns {
  const left = NAMES + LOOSE;
  const each = Math.max(34, (width - left - 12) / Math.max(data.tokens.length, 1));
  const tokens = data.tokens.map((_, i) => ({ x: left + (i + 0.5) * each, width: each - 8 }));
  return { width: Math.max(width, left + each * data.tokens.length + 12), tokens, segments: [], axis: undefined, left };
}

function timedColumns(data: GraphData, width: number): Columns {
  const heard = data.segments.filter(({ kind }) => kind !== "padding");
  const end = Math.max(0.1, ...heard.map((segment) => segment.end));
  const prompt = data.tokens.filter((token) => token.prompt).length;
  const left = NAMES + LOOSE + prompt * PROMPT + 10;
  const right = data.segments.some(({ kind }) => kind === "padding") ? PADDING : 12;
  const room = Math.max(width - left - right, Math.round(end * 34), 120);
  const axis = new TimeAxis(0, end, room);
  const segments = data.segments.map(({ kind, start, end: stop }) =>
    kind === "padding"
      ? { x: left + room + right / 2, width: right - 10 }
      : { x: left + axis.x((start + stop) / 2), width: Math.max(axis.x(stop) - axis.x(start) - 2, 2) },
  );
  return { width: left + room + right, tokens: tokenColumns(data, axis, left), segments, axis, left };
}

/** Tokens stand where their word is said, as near to it as those beside them leave room. */
function tokenColumns(data: GraphData, axis: TimeAxis, left: number): Column[] {
  const spoken = data.tokens.map((token, i) => ({ token, i })).filter(({ token }) => !token.prompt);
  let before = 0;
  const wanted = spoken.map(({ token }) => {
    if (token.start !== undefined && token.end !== undefined) before = Math.max(before, (token.start + token.end) / 2);
    return axis.x(before);
  });
  const xs = apart(wanted, Math.min(PROMPT, (axis.width - 10) / Math.max(spoken.length, 1)), axis.width - 6);
  const columns: Column[] = data.tokens.map((_, i) => ({ x: NAMES + LOOSE + (i + 0.5) * PROMPT, width: PROMPT - 3 }));
  spoken.forEach(({ i }, k) => {
    const gaps = [xs[k]! - (xs[k - 1] ?? -40), (xs[k + 1] ?? axis.width + 40) - xs[k]!];
    columns[i] = { x: left + xs[k]!, width: Math.max(STEP, Math.min(...gaps, 90) - 3) };
  });
  return columns;
}

/** Rising places as near to the wanted ones as a least distance allows, none beyond `most` (isotonic least squares). */
export function apart(wanted: readonly number[], distance: number, most = Infinity): number[] {
  const blocks: { sum: number; count: number }[] = [];
  wanted.forEach((x, i) => {
    blocks.push({ sum: x - i * distance, count: 1 });
    while (blocks.length > 1) {
      const [a, b] = [blocks[blocks.length - 2]!, blocks[blocks.length - 1]!];
      if (a.sum / a.count <= b.sum / b.count) break;
      blocks.splice(-2, 2, { sum: a.sum + b.sum, count: a.count + b.count });
    }
  });
  const xs = blocks.flatMap(({ sum, count }) => Array<number>(count).fill(sum / count)).map((x, i) => Math.max(x, distance / 2) + i * distance);
  return xs.map((x, i) => Math.min(x, most - (xs.length - 1 - i) * distance));
}

/** The node nearest to a point, among those that are shown and not farther than `reach`; -1 if there is none. */
export function nearest(layout: Layout, shown: Uint8Array, x: number, y: number, reach = 22): number {
  let best = reach * reach;
  let found = -1;
  for (let i = 0; i < layout.x.length; i++) {
    if (!shown[i]) continue;
    const far = (layout.x[i]! - x) ** 2 + (layout.y[i]! - y) ** 2;
    if (far < best) [best, found] = [far, i];
  }
  return found;
}

/** The next node from one in a direction: sideways within its band, up and down to the nearest of another band. */
export function neighbour(layout: Layout, shown: Uint8Array, from: number, key: "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown"): number {
  const band = (i: number) => layout.bands.findIndex(({ y, height }) => Math.abs(layout.y[i]! - y) <= height / 2);
  const own = band(from);
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  let best = Infinity;
  let found = from;
  for (let i = 0; i < layout.x.length; i++) {
    if (!shown[i] || i === from) continue;
    const there = band(i);
    const [dx, dy] = [layout.x[i]! - layout.x[from]!, layout.y[i]! - layout.y[from]!];
    if (sideways ? there !== own || (dx * sign || dy * sign) <= 0 : (there - own) * sign <= 0) continue;
    const cost = sideways ? Math.abs(dx) + Math.abs(dy) / 100 : Math.abs(there - own) * 1e4 + Math.abs(dx);
    if (cost < best) [best, found] = [cost, i];
  }
  return found;
}
