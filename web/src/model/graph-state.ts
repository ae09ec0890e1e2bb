/** What a person has chosen and written on a graph, kept in the address; and the Python and the command that do the same. */

import type { Annotations, GraphData } from "../contract.ts";
import { addressWith } from "./address.ts";

interface Looked {
  node: string; // id of the chosen one
  nodes: number; // share of influence that the shown nodes carry
  edges: number;
}

/** One graph as it is shown. */
export interface View extends Looked {
  annotations: Annotations;
}

/** All that a panel of one graph or two holds: what is written on each graph is kept apart. */
export interface Held extends Looked {
  written: Annotations[];
}

export const NOTHING: Annotations = { labels: {}, pins: [], supernodes: [], places: {}, note: "" };
const MOST = 200_000; // characters of an address that are read

const NOTES = ["notes", "other-notes"]; // in the address, by graph
const OWN = ["node", "nodes", "edges", ...NOTES];

export function annotationsOf(data: GraphData): Annotations {
  return { ...NOTHING, ...data.annotations };
}

/** What an address says of graphs.
 *
 * @param usual share of nodes and edges that is shown where the address says nothing
 * @param written what is on the graphs where the address says nothing of that
 * @param notes whether the address may tell what is written: not where the host keeps it, and an old link would undo it
 */
export function heldIn(hash: string, [data]: readonly [GraphData, ...GraphData[]], usual: number, written: Annotations[], notes = true): Held {
  const said = new URLSearchParams(hash.slice(0, MOST).replace(/^#/, ""));
  const share = (name: string, otherwise: number) => {
    const value = Number(said.get(name) ?? NaN);
    return value >= 0 && value <= 1 ? value : otherwise;
  };
  const ids = new Set(data.nodes.map(({ id }) => id));
  const named = said.get("node") ?? "";
  return {
    node: ids.has(named) ? named : (data.nodes[data.targets[0]?.node ?? 0]?.id ?? ""),
    nodes: share("nodes", usual),
    edges: share("edges", usual),
    written: written.map((now, i) => (notes ? annotationsIn(said.get(NOTES[i]!)) : undefined) ?? now),
  };
}

/** The address with what is held; names that are not of graphs stay. */
export function hashWith(hash: string, held: Held, graphs: readonly GraphData[], notes = true): string {
  const changed = held.written.map((now, i) => {
    const text = JSON.stringify(now);
    return notes && text !== JSON.stringify(annotationsOf(graphs[i]!)) ? text : undefined;
  });
  const said = Object.fromEntries(NOTES.map((name, i) => [name, changed[i]]));
  return addressWith(hash, { node: held.node, nodes: String(held.nodes), edges: String(held.edges), ...said });
}

/** Whether two addresses say the same of graphs, whatever else they say. */
export function sameHeld(a: string, b: string): boolean {
  const [one, other] = [a, b].map((hash) => new URLSearchParams(hash.replace(/^#/, "")));
  return OWN.every((name) => one!.get(name) === other!.get(name));
}

/** Where a slider stands for a share: most features differ in the last per cents, so those have most of its way. */
export const positionOf = (share: number): number => 1 - Math.sqrt(1 - share);
export const shareAt = (position: number): number => Number((1 - (1 - position) ** 2).toFixed(4));

/** Annotations out of an address or a file, or undefined where they are none. */
export function annotationsIn(text: string | null): Annotations | undefined {
  if (!text) return undefined;
  try {
    const told = JSON.parse(text) as Partial<Annotations>;
    const texts = (all: unknown): string[] => (Array.isArray(all) ? all.filter((one) => typeof one === "string") : []);
    const entries = Object.entries(told.labels ?? {}).filter(([, label]) => typeof label === "string");
    const supernodes = (Array.isArray(told.supernodes) ? told.supernodes : []).map(({ label, nodes }) => ({ label: String(label), nodes: texts(nodes) }));
    const places = Object.entries(told.places ?? {}).filter(([, at]) => Array.isArray(at) && at.length === 2 && at.every(Number.isFinite));
    return {
      labels: Object.fromEntries(entries),
      pins: texts(told.pins),
      supernodes: supernodes.filter(({ nodes }) => nodes.length > 1),
      places: Object.fromEntries(places),
      note: typeof told.note === "string" ? told.note : "",
    };
  } catch {
    return undefined;
  }
}

/** A text as a Python literal. */
export function quoted(text: string): string {
  return JSON.stringify(text).replace(/[\u2028\u2029]/g, (one) => `\\u${one.charCodeAt(0).toString(16)}`);
}

/** Lines of Python that make the graph, prune it as it is shown, and look at the chosen node. */
export function pythonOf(data: GraphData, view: View): string {
  const { node_share: node, edge_share: edge } = data.left_out;
  const { pins, supernodes } = view.annotations;
  const kept = [...new Set([...pins, ...supernodes.flatMap(({ nodes }) => nodes)])];
  const inputs = data.nodes.find(({ id }) => id === view.node)?.inputs;
  return [
    data.made.python,
    `part = graph.prune(${node}, ${edge}).graph.prune(${view.nodes}, ${view.edges}).graph`,
    ...(inputs ? [`inputs = graph.row(${quoted(view.node)})  # what supplied it, strongest first`] : []),
    ...(kept.length ? [`subgraph = graph.subgraph([${kept.map(quoted).join(", ")}])`] : []),
  ].join("\n");
}

/** The command that makes this page, shown as it is now. */
export function commandOf(data: GraphData): string {
  return `${data.made.command} --page graph.html`;
}
