/** From parts of a graph to the changes that take them away. */

import type { GraphNode, HeadPart } from "../contract.ts";
import { type Change, spellComponent, spellFeature, spellSpan } from "./experiment.ts";

/** Streams whose parts can be changed: those of a recogniser, and that of a language model. */
const CHANGEABLE = ["encoder", "decoder", "text"];

/** Of a feature, at its place alone: its position in the text, or its stretch of sound; times a factor, 0 takes it away. */
export function changeOf(node: GraphNode | undefined, factor = 0): Change | undefined {
  if (node?.kind !== "feature" || node.feature === undefined || !CHANGEABLE.includes(node.stream)) return undefined;
  const heard = node.start !== undefined && node.end !== undefined ? spellSpan([node.start, node.end]) : "";
  const place = node.stream === "encoder" ? heard : String(node.position ?? "");
  return { kind: "feature", text: spellFeature(node.stream, node.layer, node.feature, factor === 0 ? "=" : "x", factor, place) };
}

/** Of a head that carries an edge into a node of a stream, everywhere. */
export function zeroedHead(stream: string, { layer, head, cross }: HeadPart): Change | undefined {
  if (!CHANGEABLE.includes(stream)) return undefined;
  const part = cross ? "cross_attn" : stream === "text" ? "attn" : "self_attn";
  return { kind: "zero", text: spellComponent({ stack: stream, layer, part, head }) };
}
