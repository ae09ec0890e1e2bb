/** What the person has chosen, kept in the address so that a link or a reload brings it back. */

import type { ExplainDoc } from "./contract.ts";

/** The token named by the address; else the document's choice; else the least certain one; -1 without tokens. */
export function initialToken(doc: ExplainDoc, hash: string): number {
  const { tokens } = doc.transcript;
  const named = tokenInHash(hash, tokens.length);
  if (named !== undefined) return named;
  if (doc.selected_token !== undefined) return doc.selected_token;
  const least = Math.min(...tokens.map((token) => token.p));
  return tokens.findIndex((token) => token.p === least);
}

export function tokenInHash(hash: string, count: number): number | undefined {
  const text = new URLSearchParams(hash.replace(/^#/, "")).get("token") ?? "";
  const index = /^\d{1,6}$/.test(text) ? Number(text) : count;
  return index < count ? index : undefined;
}

export function hashOf(token: number): string {
  return `#token=${token}`;
}
