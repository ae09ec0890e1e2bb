/** What a person has chosen and written on a graph, kept in the address; and the Python and the command that do the same. */

import type { Annotations, GraphData } from "../contract.ts";

export interface View {
  node: string; // id of the chosen one
  nodes: number; // share of influence that the shown nodes carry
  edges: number;
  annotations: Annotations;
}

export const NOTHING: Annotations = { labels: {}, pins: [], supernodes: [], places: {}, note: "" };
const MOST = 200_000; // characters of an address that are read

export function initialView(data: GraphData, hash: string): View {
  const said = new URLSearchParams(hash.slice(0, MOST).replace(/^#/, ""));
  const share = (name: string, otherwise: number) => {
    const value = Number(said.get(name) ?? NaN);
    return value >= 0 && value <= 1 ? value : otherwise;
  };
  const ids = new Set(data.nodes.map(({ id }) => id));
  const named = said.get("node") ?? "";
  return {
    node: ids.has(named) ? named : (data.nodes[data.targets[0]?.node ?? 0]?.id ?? ""),
    nodes: share("nodes", 0.8),
    edges: share("edges", 0.8),
    annotations: annotationsIn(said.get("notes")) ?? { ...NOTHING, ...data.annotations },
  };
}

export function hashOfView(view: View): string {
  const said = new URLSearchParams({ node: view.node, nodes: String(view.nodes), edges: String(view.edges) });
  const { labels, pins, supernodes, note } = view.annotations;
  if (Object.keys(labels).length + pins.length + supernodes.length + note.length) said.set("notes", JSON.stringify(view.annotations));
  return `#${said}`;
}

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
