/** From a node of a graph to the change that takes it away. */

import type { GraphNode } from "../contract.ts";
import { type Change, spellFeature, spellSpan } from "./experiment.ts";

/** Of a feature of a recogniser, at its place alone: its position in the text, or its stretch of sound. */
export function changeOf(node: GraphNode | undefined): Change | undefined {
  if (node?.kind !== "feature" || node.feature === undefined) return undefined;
  if (node.stream !== "encoder" && node.stream !== "decoder") return undefined;
  const heard = node.start !== undefined && node.end !== undefined ? spellSpan([node.start, node.end]) : "";
  const place = node.stream === "encoder" ? heard : String(node.position ?? "");
  return { kind: "feature", text: spellFeature(node.stream, node.layer, node.feature, "=", 0, place) };
}
