/** Influence along all paths, and the smallest part of a graph that carries a share of it: the same rule as in Python. */

import type { Graph } from "./graph.ts";

export interface Shown {
  node: Uint8Array;
  edge: Uint8Array;
  nodes: number;
  edges: number;
}

/** What of the start reaches each node along all paths; ends because the graph has no cycle. `share` is per edge, not negative. */
export function pathInfluence(graph: Graph, share: ArrayLike<number>, start: Float64Array): Float64Array {
  const total = new Float64Array(graph.count);
  let current = start;
  for (let step = 0; step <= graph.count && current.some((value) => value > 0); step++) {
    const reached = new Float64Array(graph.count);
    for (let edge = 0; edge < graph.edges; edge++) {
      reached[graph.source[edge]!]! += current[graph.target[edge]!]! * share[edge]!;
    }
    for (let i = 0; i < total.length; i++) total[i]! += reached[i]!;
    current = reached;
  }
  return total;
}

/** The least among the fewest, largest values that together reach a share of the sum; ties are kept. */
export function threshold(values: Float64Array, share: number): number {
  const ordered = values.slice().sort().reverse();
  const total = ordered.reduce((sum, value) => sum + value, 0);
  if (total <= 0) return 0;
  let sum = 0;
  const at = ordered.findIndex((value) => (sum += value) / total >= share);
  return ordered[at < 0 ? ordered.length - 1 : at] as number;
}

/** Nodes that carry `nodeShare` of the influence and, between them, edges that carry `edgeShare`; sources and targets stay. */
export function prune(graph: Graph, nodeShare: number, edgeShare: number): Shown {
  const size = Float64Array.from(graph.share, Math.abs);
  const influence = pathInfluence(graph, size, graph.start);
  const least = threshold(influence, nodeShare);
  const free = graph.data.nodes.map(({ kind }) => kind !== "feature" && kind !== "error");
  const node = Uint8Array.from(influence, (value, i) => (value >= least || free[i] ? 1 : 0));
  const inside = Uint8Array.from(size, (_, edge) => node[graph.source[edge]!]! & node[graph.target[edge]!]!);
  const kept = size.map((value, edge) => (inside[edge] ? value : 0));
  const through = pathInfluence(graph, kept, graph.start);
  const score = kept.map((value, edge) => value * (through[graph.target[edge]!]! + graph.start[graph.target[edge]!]!));
  const fewest = threshold(score.filter((_, edge) => inside[edge]), edgeShare);
  const edge = inside.map((is, i) => (is && score[i]! >= fewest ? 1 : 0));
  return connected(graph, node, edge, free);
}

/** Features and errors that lead nowhere go, and features that nothing leads to, until none is left. */
function connected(graph: Graph, node: Uint8Array, edge: Uint8Array, free: boolean[]): Shown {
  for (let changed = true; changed; ) {
    changed = false;
    const [out, into] = [new Uint8Array(graph.count), new Uint8Array(graph.count)];
    edge.forEach((kept, i) => {
      if (!kept) return;
      out[graph.source[i]!] = 1;
      into[graph.target[i]!] = 1;
    });
    for (let i = 0; i < graph.count; i++) {
      const stays = free[i] || (out[i] && (into[i] || graph.node(i).kind !== "feature"));
      if (node[i] && !stays) {
        node[i] = 0;
        changed = true;
      }
    }
    if (changed) edge.forEach((_, i) => (edge[i]! &= node[graph.source[i]!]! & node[graph.target[i]!]!));
  }
  const sum = (flags: Uint8Array) => flags.reduce((total, flag) => total + flag, 0);
  return { node, edge, nodes: sum(node), edges: sum(edge) };
}
