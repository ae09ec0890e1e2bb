/** What the parts of the graph panel share. */

import type { Annotations, GraphData, Resource } from "../../contract.ts";
import { called, hasLayer, type Graph } from "../../model/graph.ts";
import type { View } from "../../model/graph-state.ts";
import type { Shown } from "../../model/graph-pruning.ts";
import { shortened, visible } from "../../model/numbers.ts";
import type { Watched } from "../../model/store.ts";

export interface GraphProps {
  graph: Graph;
  shown: Shown;
  view: View;
  chosen: number;
  /** The target that was chosen last: what is explained. */
  target: number;
  hovered: Watched<number>;
  choose: (node: number) => void;
  pin: (node: number) => void;
  annotate: (change: (annotations: Annotations) => Annotations) => void;
  /** Plays the sound of a node, where it has one. */
  play: ((node: number) => void) | undefined;
  resources: Record<string, Resource>;
  /** Where the graph is in the document. */
  place: string;
}

/** A share of a target's input, signed, in per cent with a true minus. */
export function percent(share: number): string {
  const size = 100 * Math.abs(share);
  const digits = size >= 9.95 ? size.toFixed(0) : size.toFixed(1);
  if (Number(digits) === 0) return size > 0 ? "<0.1 %" : "0 %";
  return `${share < 0 ? "−" : "+"}${digits} %`;
}

export function NodeName({ graph, node, annotations, length = 60 }: { graph: Graph; node: number; annotations: Annotations; length?: number }) {
  const one = graph.node(node);
  const name = called(one, annotations);
  const literal = one.kind === "token" || one.kind === "target";
  return (
    <bdi class={literal ? "literal" : undefined} title={shortened(name, 400)}>
      {shortened(literal ? visible(name) : name, length)}
    </bdi>
  );
}

/** The short place of a node: layer, and position or time. */
export function shortPlace(data: GraphData, graph: Graph, i: number): string {
  const node = graph.node(i);
  const stack = data.streams.find((stream) => stream.name === node.stream)?.hears ? "enc " : "";
  const layer = hasLayer(graph, i) ? `${stack}L${node.layer}` : "";
  const at = node.start !== undefined && node.kind !== "target" ? `${node.start.toFixed(2)} s` : node.position !== undefined && node.kind !== "target" ? `position ${node.position}` : "";
  return [layer, at].filter(Boolean).join(" · ");
}
