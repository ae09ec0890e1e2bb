/** Where the boxes of the subgraph stand: deeper layers higher, earlier things further left, unless a person moved them. */

import type { Annotations } from "../contract.ts";
import type { Graph } from "./graph.ts";
import type { Box } from "./graph-groups.ts";

export interface Place {
  x: number; // shares of width and height, of the centre
  y: number;
}

export function placesOf(graph: Graph, boxes: readonly Box[], annotations: Annotations): Place[] {
  const depth = boxes.map((box) => mean(box.nodes.map((i) => depthOf(graph, i))));
  const time = boxes.map((box) => mean(box.nodes.map((i) => timeOf(graph, i))));
  const levels = [...new Set(depth.map((value) => Math.round(value)))].sort((a, b) => b - a);
  return boxes.map((box, number) => {
    if (Object.hasOwn(annotations.places, box.key)) {
      const [x, y] = annotations.places[box.key]!;
      return { x: clamp(x), y: clamp(y) };
    }
    const level = levels.indexOf(Math.round(depth[number]!));
    const row = boxes.map((_, i) => i).filter((i) => Math.round(depth[i]!) === Math.round(depth[number]!));
    row.sort((a, b) => time[a]! - time[b]! || a - b);
    return { x: (row.indexOf(number) + 0.5) / row.length, y: (level + 0.5) / levels.length };
  });
}

/** How far from the sources: what is heard, then what writes, then the output. */
function depthOf(graph: Graph, i: number): number {
  const node = graph.node(i);
  const hears = graph.data.streams.find(({ name }) => name === node.stream)?.hears;
  const below = graph.data.streams.filter((stream) => stream.hears).reduce((sum, stream) => sum + stream.layers + 1, 0);
  if (node.kind === "target") return 1e4;
  if (node.kind === "frame" || node.layer < 0) return hears || node.kind === "frame" ? -1 : below;
  return (hears ? 0 : below + 1) + node.layer;
}

function timeOf(graph: Graph, i: number): number {
  const node = graph.node(i);
  if (node.start !== undefined) return node.start;
  const token = node.position === undefined ? undefined : graph.data.tokens[node.position];
  return token?.start ?? (graph.data.segments.length ? -1 + (node.position ?? -1) / 1e3 : (node.position ?? -1));
}

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
const clamp = (value: number) => Math.min(Math.max(value, 0.02), 0.98);
