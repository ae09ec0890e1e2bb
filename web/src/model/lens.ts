/** A logit lens arranged: what a cell shows, and how a token fares from layer to layer. */

import type { LensLayer, LensToken, LogitLens } from "../contract.ts";
import { decimal, probability } from "./numbers.ts";

export const MEASURES = ["probability", "rank", "entropy"] as const;
export type LensMeasure = (typeof MEASURES)[number];

export interface ReadToken {
  index: number;
  id: number;
  text: string;
  after?: string;
}

/** Layer numbers, the last first. */
export function layersOf(lens: LogitLens): number[] {
  return [...new Set(lens.tokens.flatMap((token) => token.layers.map((layer) => layer.layer)))].sort((a, b) => b - a);
}

/** The largest entropy there is: the end of its colour scale. */
export function mostEntropy(lens: LogitLens): number {
  return Math.max(1e-9, ...lens.tokens.flatMap((token) => token.layers.map((layer) => layer.entropy)));
}

/** Colour from 0 to 1. Ranks are on a logarithmic scale that ends at 1,000; rank 0 is strongest. */
export function tintOf(layer: LensLayer, by: LensMeasure, most: number): number {
  if (by === "probability") return layer.p_final;
  if (by === "rank") return 1 - Math.min(Math.log10(1 + layer.rank_final) / 3, 1);
  return layer.entropy / most;
}

export function measured(layer: LensLayer, by: LensMeasure): string {
  if (by === "probability") return probability(layer.p_final);
  if (by === "rank") return String(layer.rank_final);
  return decimal(layer.entropy);
}

/** A measure of the written token over the layers. */
export function trajectory(token: LensToken, by: LensMeasure): { x: number; y: number }[] {
  const value = { probability: (one: LensLayer) => one.p_final, rank: (one: LensLayer) => one.rank_final, entropy: (one: LensLayer) => one.entropy }[by];
  return token.layers.map((layer) => ({ x: layer.layer, y: value(layer) }));
}

/** A candidate's probability or rank over the layers in which it is among the best that are kept. */
export function candidate(token: LensToken, id: number, by: LensMeasure): { x: number; y: number }[] {
  return token.layers.flatMap((layer) => {
    const place = layer.top.findIndex((one) => one.id === id);
    const found = layer.top[place];
    if (!found || by === "entropy") return [];
    return [{ x: layer.layer, y: by === "rank" ? place : found.p }];
  });
}
