/** Where a page gets its document from. This is the host of a page opened from disk: all is in the file. */

import type { ExplainDoc, FeaturesDoc } from "./contract.ts";
import { bytesOfBase64 } from "./model/arrays.ts";

export type Doc = ExplainDoc | FeaturesDoc;

export async function readDocument(): Promise<Doc> {
  const element = document.getElementById("document");
  if (!element?.textContent) throw new Error("This file holds no document.");
  const packed = element.dataset.encoding === "gzip";
  const text = packed ? await inflate(bytesOfBase64(element.textContent)) : element.textContent;
  element.remove(); // the text would otherwise be kept twice
  const doc = JSON.parse(text) as Doc;
  if (!["explain", "features"].includes(doc.kind) || doc.version !== 1) {
    throw new Error("This page cannot show that kind of document.");
  }
  return doc;
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** A Blob URL for a carried file, or undefined when the document has none by that name. */
export function resourceUrl(doc: Doc, name: string): string | undefined {
  const resource = Object.hasOwn(doc.resources, name) ? doc.resources[name] : undefined;
  if (!resource) return undefined;
  return URL.createObjectURL(new Blob([bytesOfBase64(resource.data)], { type: resource.media_type }));
}
