/** What a node of a graph means elsewhere on its page, and which node is meant by a time, a token or a feature. */

import type { GraphNode } from "../contract.ts";
import { featureKey, type Meant } from "../linked.ts";
import type { Graph } from "./graph.ts";

/** The time in the middle of what a node hears, or the written token that it stands on; and its feature. */
export function meantBy(graph: Graph, i: number): Meant {
  const node = graph.node(i);
  const feature = node.feature === undefined || node.kind !== "feature" ? undefined : featureKey(node.stream, node.layer, node.feature);
  const heard = node.kind !== "target" && node.start !== undefined && node.end !== undefined;
  if (heard) return { time: ((node.start as number) + (node.end as number)) / 2, feature };
  const written = node.position === undefined ? -1 : node.position - promptOf(graph);
  // A target is read where the token before it stands.
  const token = node.kind === "target" ? written + 1 : written;
  return { token: token >= 0 ? token : undefined, feature };
}

/** The node of a feature; else the sound at a time; else a token; -1 where nothing that is shown is meant. */
export function nodeMeant(graph: Graph, shown: Uint8Array, { time, token, feature }: Meant): number {
  const best = (fits: (node: GraphNode) => boolean) =>
    graph.data.nodes.reduce((found, node, i) => (shown[i] && fits(node) && (found < 0 || node.influence > graph.node(found).influence) ? i : found), -1);
  if (feature !== undefined) {
    const own = best((node) => node.kind === "feature" && node.feature !== undefined && featureKey(node.stream, node.layer, node.feature) === feature);
    if (own >= 0) return own;
  }
  if (time !== undefined) {
    const heard = best(({ kind, start, end }) => kind !== "target" && kind !== "feature" && start !== undefined && end !== undefined && start <= time && time < end);
    if (heard >= 0) return heard;
  }
  const position = token === undefined ? undefined : token + promptOf(graph);
  return position === undefined ? -1 : best((node) => node.kind === "token" && node.position === position);
}

function promptOf(graph: Graph): number {
  return graph.data.tokens.filter(({ prompt }) => prompt).length;
}
