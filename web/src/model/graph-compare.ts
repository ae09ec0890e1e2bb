/** Two graphs beside each other: nodes are the same where their ids are. */

import type { Graph } from "./graph.ts";

export interface Difference {
  id: string;
  a?: number; // node of the first
  b?: number;
  influence: [number, number];
}

/** All nodes of both, the largest difference of influence first. */
export function differences(a: Graph, b: Graph): Difference[] {
  const ids = new Set([...a.data.nodes, ...b.data.nodes].filter(({ kind }) => kind !== "target").map(({ id }) => id));
  const all = [...ids].map((id): Difference => {
    const [i, j] = [a.index(id), b.index(id)];
    const influence: [number, number] = [i === undefined ? 0 : a.node(i).influence, j === undefined ? 0 : b.node(j).influence];
    return { id, ...(i === undefined ? {} : { a: i }), ...(j === undefined ? {} : { b: j }), influence };
  });
  return all.sort((x, y) => Math.abs(y.influence[1] - y.influence[0]) - Math.abs(x.influence[1] - x.influence[0]));
}

/** Nodes of a graph that the other one does not have. */
export function onlyHere(here: Graph, there: Graph): Uint8Array {
  return Uint8Array.from(here.data.nodes, ({ id, kind }) => (kind !== "target" && there.index(id) === undefined ? 1 : 0));
}
