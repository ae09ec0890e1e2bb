/** Influence along all paths, and the smallest part of a graph that carries a share of it: the same rule as in Python. */

import type { Graph } from "./graph.ts";
import { shareAt } from "./graph-state.ts";

export interface Shown {
  node: Uint8Array;
  edge: Uint8Array;
  nodes: number;
  edges: number;
}

/** Values as near to each other as this are equal: where there is one way, its edges differ by rounding alone. */
const TIE = 1e-9;

/** What of the start reaches each node along all paths; `share` is per edge and not negative. */
export function pathInfluence(graph: Graph, share: ArrayLike<number>, start: Float64Array): Float64Array {
  const total = new Float64Array(graph.count);
  for (const edge of graph.downwards) {
    const target = graph.target[edge]!;
    total[graph.source[edge]!]! += (total[target]! + start[target]!) * share[edge]!;
  }
  return total;
}

/** The least among the fewest, largest values that together reach a share of the sum; ties are kept. */
export function threshold(values: Float64Array, share: number): number {
  const ordered = values.slice().sort().reverse();
  const total = ordered.reduce((sum, value) => sum + value, 0);
  if (total <= 0 || share >= 1) return 0; // all of it, whatever sums are rounded to
  let sum = 0;
  const at = ordered.findIndex((value) => (sum += value) / total >= share);
  return (ordered[at < 0 ? ordered.length - 1 : at] as number) * (1 - TIE);
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

const READABLE = 60; // features that a person takes in at once

/** The least share, of nodes and of edges, that shows as many features as can be taken in, or all. */
export function usualShare(graph: Graph): number {
  const features = (position: number) => {
    const { node } = prune(graph, shareAt(position), shareAt(position));
    return graph.data.nodes.filter(({ kind }, i) => kind === "feature" && node[i]).length;
  };
  let [low, high] = [0.5, 1];
  while (high - low > 0.012) {
    const middle = Math.round(50 * (low + high)) / 100;
    if (middle === low || middle === high) break;
    if (features(middle) < READABLE) low = middle;
    else high = middle;
  }
  return shareAt(high);
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
