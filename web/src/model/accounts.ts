/** The account of a token's logit: which stretch of sound, which word, what else. */

import type { Accounts, ExplainDoc } from "../contract.ts";
import { unpack } from "./arrays.ts";
import type { Span } from "./time.ts";

/** What one written word's time, a pause or the padding supplied. */
export interface Stretch extends Span {
  label: string; // the word, or ""
  kind: "word" | "pause" | "padding";
  value: number; // logits
  share: number; // of all that the sound said for the token; 0 where it spoke against it
}

export interface Source {
  name: string;
  value: number;
}

/** What can supply a logit, in the same words on every page. */
export const SOURCES = {
  sound: "the sound",
  text: "the words before",
  prompt: "the prompt",
  anyCase: "said in any case (biases and positions)",
  errors: "errors of the dictionary",
} as const;

export class AccountBook {
  private readonly sound: Float32Array;
  private readonly text: Float32Array;

  constructor(readonly accounts: Accounts, private readonly doc: ExplainDoc) {
    this.sound = unpack(accounts.sound);
    this.text = unpack(accounts.text);
  }

  /** What each span supplied to a token. */
  spansOf(token: number): Float32Array {
    const count = this.accounts.spans.length;
    return this.sound.subarray(token * count, (token + 1) * count);
  }

  /** Spans pooled into words, pauses and padding, in the order of time. */
  stretches(token: number): Stretch[] {
    const values = this.spansOf(token);
    const found: Stretch[] = [];
    this.accounts.spans.forEach(([start, end], i) => {
      const owner = this.ownerOf(start, end);
      const last = found.at(-1);
      const value = values[i] ?? 0;
      if (last && last.kind === owner.kind && last.label === owner.label && last.end === start) {
        last.end = end;
        last.value += value;
      } else {
        found.push({ start, end, value, share: 0, ...owner });
      }
    });
    const total = values.reduce((sum, value) => sum + Math.max(value, 0), 0);
    for (const one of found) one.share = total > 0 ? Math.max(one.value, 0) / total : 0;
    return found;
  }

  private ownerOf(start: number, end: number): Pick<Stretch, "label" | "kind"> {
    if (start >= this.doc.audio.duration - 1e-3) return { label: "", kind: "padding" };
    const middle = (start + end) / 2;
    const word = this.doc.transcript.words.find((one) => (one.start ?? Infinity) <= middle && middle < (one.end ?? -1));
    return word ? { label: word.text.trim(), kind: "word" } : { label: "", kind: "pause" };
  }

  /** The tokens before that supplied most, strongest first. */
  tokensBefore(token: number, count: number): { token: number; value: number }[] {
    const all = this.accounts.tokens.length;
    return Array.from(this.text.subarray(token * all, (token + 1) * all), (value, before) => ({ token: before, value }))
      .filter(({ token: before, value }) => before < token && value !== 0)
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
      .slice(0, count);
  }

  /** Everything that supplied the logit. */
  sources(token: number): Source[] {
    const one = this.accounts.tokens[token];
    if (!one) return [];
    return [
      { name: SOURCES.sound, value: one.sound },
      { name: SOURCES.text, value: one.text },
      { name: SOURCES.prompt, value: one.prompt },
      { name: SOURCES.anyCase, value: one.biases + one.positions },
      { name: SOURCES.errors, value: one.errors },
    ].filter(({ value }) => Math.abs(value) >= 0.005);
  }
}
