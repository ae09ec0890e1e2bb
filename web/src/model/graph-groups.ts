/** Supernodes: what groups of nodes supply to each other, and which nodes look like one. */

import type { Supernode } from "../contract.ts";
import type { Graph } from "./graph.ts";

/** A box of the subgraph: a pinned node, or a supernode. */
export interface Box {
  key: string; // a node's id, or `supernode/` and the id of the first
  nodes: number[];
  supernode: number; // its number, or -1
}

export interface Bundle {
  source: number; // boxes
  target: number;
  share: number; // signed, of the target's whole input
}

export function boxesOf(graph: Graph, pins: readonly string[], supernodes: readonly Supernode[]): Box[] {
  const boxes: Box[] = [];
  const grouped = new Set<number>();
  supernodes.forEach((supernode, number) => {
    const nodes = supernode.nodes.map((id) => graph.index(id)).filter((i) => i !== undefined);
    nodes.forEach((i) => grouped.add(i));
    if (nodes.length) boxes.push({ key: `supernode/${supernode.nodes[0]}`, nodes, supernode: number });
  });
  for (const id of pins) {
    const i = graph.index(id);
    if (i !== undefined && !grouped.has(i)) boxes.push({ key: id, nodes: [i], supernode: -1 });
  }
  return boxes;
}

/** Of the whole input of a box's nodes together, the signed share that another box's nodes supplied; directly, no path between. */
export function bundles(graph: Graph, boxes: readonly Box[]): Bundle[] {
  const boxOf = new Map(boxes.flatMap((box, number) => box.nodes.map((i) => [i, number] as const)));
  const found: Bundle[] = [];
  boxes.forEach((box, target) => {
    const mass = box.nodes.reduce((sum, i) => sum + (graph.node(i).inputs?.mass ?? 0), 0);
    const sums = new Map<number, number>();
    for (const i of box.nodes) {
      for (const edge of graph.into[i]!) {
        const source = boxOf.get(graph.source[edge]!);
        if (source !== undefined && source !== target) sums.set(source, (sums.get(source) ?? 0) + graph.weight[edge]!);
      }
    }
    for (const [source, weight] of sums) found.push({ source, target, share: weight / mass });
  });
  return found;
}

/** Puts nodes into one supernode; they leave the ones that they were in, and supernodes of fewer than two dissolve. */
export function grouped(supernodes: readonly Supernode[], nodes: readonly string[], label: string): Supernode[] {
  const taken = new Set(nodes);
  const others = supernodes.map((one) => ({ ...one, nodes: one.nodes.filter((id) => !taken.has(id)) }));
  return [...others, { label, nodes: [...taken] }].filter((one) => one.nodes.length > 1);
}

/** Groups of nodes that are fed by, and feed, the same nodes with the same signs. */
export function suggestedGroups(graph: Graph, candidates: readonly number[], least = 0.55): number[][] {
  const groups = candidates.filter((i) => graph.node(i).kind === "feature").map((i) => [i]);
  const profiles = new Map(groups.map(([i]) => [i!, profile(graph, i!)]));
  const alike = (a: number[], b: number[]) =>
    Math.min(...a.flatMap((i) => b.map((j) => near(graph, i, j) * cosine(profiles.get(i)!, profiles.get(j)!))));
  for (;;) {
    let best = { value: least, a: -1, b: -1 };
    for (let a = 0; a < groups.length; a++) {
      for (let b = a + 1; b < groups.length; b++) {
        const value = alike(groups[a]!, groups[b]!);
        if (value > best.value) best = { value, a, b };
      }
    }
    if (best.a < 0) break;
    groups[best.a] = [...groups[best.a]!, ...groups[best.b]!];
    groups.splice(best.b, 1);
  }
  return groups.filter((group) => group.length > 1);
}

/** Shares of inputs and outputs by node: the keys of inputs are its number, those of outputs follow after. */
function profile(graph: Graph, i: number): Map<number, number> {
  const shares = new Map<number, number>();
  for (const edge of graph.into[i]!) shares.set(graph.source[edge]!, graph.share[edge]!);
  for (const edge of graph.from[i]!) shares.set(graph.count + graph.target[edge]!, graph.share[edge]!);
  return scaled(shares, graph.count);
}

/** Inputs and outputs count alike, however many there are of either. */
function scaled(shares: Map<number, number>, count: number): Map<number, number> {
  const squares = [0, 0];
  for (const [key, share] of shares) squares[key < count ? 0 : 1]! += share * share;
  return new Map([...shares].map(([key, share]) => [key, share / Math.sqrt(2 * squares[key < count ? 0 : 1]! || 1)]));
}

function cosine(a: Map<number, number>, b: Map<number, number>): number {
  let sum = 0;
  for (const [key, value] of a) sum += value * (b.get(key) ?? 0);
  return sum;
}

/** Nodes of another stack, or more than two layers apart, are no one thing. */
function near(graph: Graph, i: number, j: number): number {
  const [a, b] = [graph.node(i), graph.node(j)];
  return a.stream === b.stream && Math.abs(a.layer - b.layer) <= 2 ? 1 : 0;
}
