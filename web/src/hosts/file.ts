/** A page opened from disk: all is in the file, and nothing can be run. */

import type { Doc, Host } from "../host.ts";
import { bytesOfBase64 } from "../model/arrays.ts";

export function fileHost(): Host {
  return {
    kind: "file",
    document: documentOfThisPage,
    can: () => false,
    act: () => Promise.reject(new Error("A page opened from disk runs no model.")),
  };
}

/** The document carried in the page itself. */
export async function documentOfThisPage(): Promise<Doc> {
  const element = document.getElementById("document");
  if (!element?.textContent) throw new Error("This file holds no document.");
  const packed = element.dataset.encoding === "gzip";
  const text = packed ? await inflate(bytesOfBase64(element.textContent)) : element.textContent;
  element.remove(); // the text would otherwise be kept twice
  return JSON.parse(text) as Doc;
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
