/** An attribution graph as typed arrays: who supplies whom, as signed shares of everything that the target was given. */

import type { Annotations, GraphData, GraphNode } from "../contract.ts";
import { unpack } from "./arrays.ts";

export class Graph {
  readonly count: number;
  readonly source: Int32Array;
  readonly target: Int32Array;
  readonly weight: Float32Array;
  /** Signed: weight over the absolute sum of the target's input, shown or not. */
  readonly share: Float64Array;
  /** Edges into and out of each node, the strongest share first. */
  readonly into: readonly Int32Array[];
  readonly from: readonly Int32Array[];
  /** All edges, so that whatever a node supplies comes before what supplies the node. */
  readonly downwards: Int32Array;
  /** All edges, the strongest share first. */
  readonly strongest: Int32Array;
  /** Weight of each node as a thing to explain. */
  readonly start: Float64Array;
  private readonly byId: Map<string, number>;

  constructor(readonly data: GraphData) {
    this.count = data.nodes.length;
    this.source = Int32Array.from(unpack(data.edges.source));
    this.target = Int32Array.from(unpack(data.edges.target));
    this.weight = unpack(data.edges.weight);
    this.share = Float64Array.from(this.weight, (weight, edge) => weight / (data.nodes[this.target[edge]!]?.inputs?.mass || Infinity));
    this.into = grouped(this.target, this.count, this.share);
    this.from = grouped(this.source, this.count, this.share);
    this.downwards = downwards(this);
    this.strongest = Int32Array.from(this.source.keys()).sort((a, b) => Math.abs(this.share[b]!) - Math.abs(this.share[a]!));
    this.start = new Float64Array(this.count);
    for (const target of data.targets) this.start[target.node]! += target.weight;
    this.byId = new Map(data.nodes.map((node, i) => [node.id, i]));
  }

  get edges(): number {
    return this.weight.length;
  }

  node(i: number): GraphNode {
    return this.data.nodes[i] as GraphNode;
  }

  index(id: string): number | undefined {
    return this.byId.get(id);
  }

  /** What the shown edges into a node leave over of its input: signed, as a share, and its size. */
  rest(i: number): { share: number; size: number } {
    const inputs = this.node(i).inputs;
    if (!inputs) return { share: 0, size: 0 };
    return { share: inputs.rest / inputs.mass, size: inputs.rest_mass / inputs.mass };
  }
}

function grouped(ends: Int32Array, count: number, share: Float64Array): Int32Array[] {
  const sizes = new Int32Array(count);
  for (const end of ends) sizes[end]!++;
  const groups = Array.from(sizes, (size) => new Int32Array(size));
  const filled = new Int32Array(count);
  ends.forEach((end, edge) => (groups[end]![filled[end]!++] = edge));
  for (const group of groups) group.sort((a, b) => Math.abs(share[b]!) - Math.abs(share[a]!));
  return groups;
}

/** Edges ordered by their targets, a target coming once all that it supplies have come; edges of a cycle, which no graph has, are left out. */
function downwards(graph: Graph): Int32Array {
  const waiting = Int32Array.from(graph.from, (edges) => edges.length);
  const ready = [...waiting.keys()].filter((i) => waiting[i] === 0);
  const order: number[] = [];
  for (let at = 0; at < ready.length; at++) {
    for (const edge of graph.into[ready[at]!]!) {
      order.push(edge);
      const source = graph.source[edge]!;
      if (--waiting[source]! === 0) ready.push(source);
    }
  }
  return Int32Array.from(order);
}

/** What a node is called: by a person, else by rule. */
export function called(node: GraphNode, annotations: Annotations): string {
  return Object.hasOwn(annotations.labels, node.id) ? (annotations.labels[node.id] as string) : node.label;
}

/** Whether a node lies in a layer of its stack; the sound lies before the first one, what is read out behind the last. */
export function hasLayer(graph: Graph, i: number): boolean {
  const node = graph.node(i);
  const out = graph.data.targets[0];
  const isOutput = out !== undefined && node.layer === graph.node(out.node).layer && node.stream === graph.node(out.node).stream;
  return node.layer >= 0 && node.kind !== "frame" && !isOutput;
}

/** What a node is and where, in words; layers and positions from 0. */
export function placeOf(graph: Graph, i: number): string {
  const { data } = graph;
  const node = graph.node(i);
  const stream = data.streams.length > 1 || data.segments.length ? `${node.stream.replace("_", " ")}, ` : "";
  const layer = hasLayer(graph, i) ? `layer ${node.layer}, ` : "";
  const kinds = { frame: node.layer < 0 ? "sound" : "what was heard", projector: "heard sound", bias: "bias", error: "error of the dictionary" };
  const kind = node.kind === "feature" ? `feature ${node.feature}` : ((kinds as Record<string, string>)[node.kind] ?? node.kind);
  const token = node.position !== undefined && node.kind !== "target" ? `, at position ${node.position}` : "";
  const time = node.start !== undefined && node.end !== undefined ? `, ${node.start.toFixed(2)}–${node.end.toFixed(2)} s` : "";
  return `${stream}${layer}${kind}${token}${time}`;
}

/** Nodes whose name, place or tokens hold the text. */
export function found(graph: Graph, wanted: string, annotations: Annotations): number[] {
  const text = wanted.trim().toLocaleLowerCase();
  if (!text) return [];
  const writes = new Map(graph.data.features.map((f) => [`${f.stream}/${f.layer}/${f.feature}`, f.promotes.map((t) => t.text).join(" ")]));
  return Array.from({ length: graph.count }, (_, i) => i).filter((i) => {
    const node = graph.node(i);
    const token = node.position === undefined ? "" : graph.data.tokens[node.position]?.text;
    const segment = node.segment === undefined ? "" : graph.data.segments[node.segment]?.label;
    const known = node.kind === "feature" ? writes.get(`${node.stream}/${node.layer}/${node.feature}`) : "";
    const all = [node.id, called(node, annotations), node.label, placeOf(graph, i), token, segment, known];
    return all.join(" ").toLocaleLowerCase().includes(text);
  });
}
