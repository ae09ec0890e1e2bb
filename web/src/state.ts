/** What the person has chosen, kept in the address so that a link or a reload brings it back. */

import type { ExplainDoc, WordInfo } from "./contract.ts";

/** The word the model was least sure of. */
export function leastCertain(doc: ExplainDoc): WordInfo | undefined {
  return doc.transcript.words.reduce<WordInfo | undefined>((a, b) => (a && a.p <= b.p ? a : b), undefined);
}

/** The token named by the address; else the document's choice; else the least certain one of the least certain word; -1
 * without tokens. */
export function initialToken(doc: ExplainDoc, hash: string): number {
  const { tokens } = doc.transcript;
  const named = tokenInHash(hash, tokens.length);
  if (named !== undefined) return named;
  if (doc.selected_token !== undefined) return doc.selected_token;
  const word = leastCertain(doc);
  const within = word ? tokens.slice(word.first_token, word.last_token + 1) : tokens;
  const least = Math.min(...within.map((token) => token.p));
  return (word?.first_token ?? 0) + within.findIndex((token) => token.p === least);
}

export function tokenInHash(hash: string, count: number): number | undefined {
  const text = new URLSearchParams(hash.replace(/^#/, "")).get("token") ?? "";
  const index = /^\d{1,6}$/.test(text) ? Number(text) : count;
  return index < count ? index : undefined;
}
