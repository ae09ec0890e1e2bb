/** Rows of cross-attention: one head of a token, or the mean of the alignment heads. */

import type { ExplainDoc } from "../contract.ts";
import { unpack } from "./arrays.ts";

export const MEAN = "mean";

export interface AttentionOfToken {
  weights: Float32Array; // a column each
  columnSeconds: number;
  peak: number;
  padding?: number | undefined; // weight on what follows the clip
}

export class Attention {
  private readonly mean: Float32Array;
  private heads: { matrix: Float32Array; peak: Float32Array; padding: Float32Array } | undefined;

  constructor(private readonly doc: ExplainDoc) {
    this.mean = unpack(doc.alignment.matrix);
  }

  /** What can be chosen: `mean`, then "layer.head" of every head that was kept. */
  choices(): string[] {
    return [MEAN, ...(this.doc.head_attention?.heads ?? []).map((head) => head.join("."))];
  }

  aligns(choice: string): boolean {
    return this.doc.alignment.heads.some((head) => head.join(".") === choice);
  }

  of(token: number, choice: string): AttentionOfToken {
    const all = this.doc.head_attention;
    const head = all?.heads.findIndex((one) => one.join(".") === choice) ?? -1;
    if (!all || head < 0) {
      const columns = this.doc.alignment.matrix.shape[1] ?? 0;
      const weights = this.mean.subarray(token * columns, (token + 1) * columns);
      return { weights, columnSeconds: this.doc.audio.frame_seconds, peak: Math.max(0, ...weights) };
    }
    this.heads ??= { matrix: unpack(all.matrix), peak: unpack(all.peak), padding: unpack(all.padding) };
    const [, tokens = 0, columns = 0] = all.matrix.shape;
    const row = head * tokens + token;
    const peak = this.heads.peak[row] ?? 0;
    const weights = this.heads.matrix.subarray(row * columns, (row + 1) * columns).map((share) => share * peak);
    return { weights, columnSeconds: all.column_seconds, peak, padding: this.heads.padding[row] };
  }
}
