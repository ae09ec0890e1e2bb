/** Which edges can be taken apart by head, and those that are. */

import type { EdgeSplit } from "../contract.ts";
import type { Graph } from "./graph.ts";

const FROM = ["feature", "error", "token", "position", "projector", "frame"];

/** What is known of how an edge splits: what the page came with, and what a model said since. */
export function splitOf(graph: Graph, edge: number): EdgeSplit | undefined {
  const [source, target] = [graph.source[edge], graph.target[edge]];
  return graph.data.splits.find((split) => split.source === source && split.target === target);
}

/** Keeps what a model said, for as long as the page is open. */
export function keepSplit(graph: Graph, split: EdgeSplit): void {
  graph.data.splits.push(split);
}

/** Whether heads carry an edge: both of its ends are of the stack that writes, and nothing below its attention was opened. */
export function canSplit(graph: Graph, edge: number): boolean {
  const [source, target] = [graph.node(graph.source[edge]!), graph.node(graph.target[edge]!)];
  const writes = (name: string) => graph.data.streams.find((stream) => stream.name === name)?.hears === false;
  return FROM.includes(source.kind) && writes(source.stream) && writes(target.stream);
}

/** Python that splits an edge of a `graph`. */
export function splitLine(graph: Graph, edge: number): string {
  const [source, target] = [graph.source[edge]!, graph.target[edge]!].map((i) => JSON.stringify(graph.node(i).id));
  return `from otoscope.circuits.heads import split_by_head; split = split_by_head(graph, ${source}, ${target})`;
}
