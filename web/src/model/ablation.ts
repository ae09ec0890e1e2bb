/** Ablation results arranged for grids and rankings. */

import type { Ablation, Component } from "../contract.ts";
import { unpack } from "./arrays.ts";

export type Stack = Component["stack"];
export type Part = Component["part"];

export interface Measured {
  component: Component;
  row: number; // of the change matrix
}

/** Rows are layers, the last on top; a missing cell was not measured. */
export interface Arranged {
  layers: number[];
  columns: number[]; // head numbers, or places in `parts`
  parts: Part[];
  cell(layer: number, column: number): Measured | undefined;
}

export class Changes {
  readonly tokens: number;
  private readonly values: Float32Array;
  private readonly random: Float32Array | undefined;

  constructor(readonly ablation: Ablation) {
    this.tokens = ablation.change.shape[1] ?? 0;
    this.values = unpack(ablation.change);
    this.random = ablation.control_change && unpack(ablation.control_change);
  }

  /** What random subspaces of a head's width do in the head's place: their mean change, and the largest either way. */
  control(component: Component, token: number): { mean: number; most: number } | undefined {
    if (!this.random || component.head === undefined) return undefined;
    const { random } = this;
    const changes = this.ablation.controls.flatMap((one, row) =>
      one.stack === component.stack && one.layer === component.layer && one.part === component.part
        ? [random[row * this.tokens + token] ?? 0]
        : [],
    );
    if (changes.length === 0) return undefined;
    const mean = changes.reduce((sum, value) => sum + value, 0) / changes.length;
    return { mean, most: Math.max(...changes.map(Math.abs)) };
  }

  at(row: number, token: number): number {
    return this.values[row * this.tokens + token] ?? 0;
  }

  /** The largest change of one token, either way: the end of its colour scale. */
  reach(token: number): number {
    const sizes = this.ablation.components.map((_, row) => Math.abs(this.at(row, token)));
    return Math.max(0.01, ...sizes);
  }

  /** Mean and largest-drop statistics of one component over all tokens. */
  overall(row: number): { mean: number; size: number; worst: number } {
    let sum = 0;
    let size = 0;
    let worst = 0;
    for (let token = 0; token < this.tokens; token++) {
      sum += this.at(row, token);
      size += Math.abs(this.at(row, token));
      if (this.at(row, token) < this.at(row, worst)) worst = token;
    }
    return { mean: sum / this.tokens, size: size / this.tokens, worst };
  }

  /** The components with the largest mean |change|, strongest first. */
  strongest(count: number): Measured[] {
    return this.ablation.components
      .map((component, row) => ({ component, row, size: this.overall(row).size }))
      .sort((a, b) => b.size - a.size || a.row - b.row)
      .slice(0, count);
  }
}

function measured(ablation: Ablation, stack: Stack, heads: boolean): Measured[] {
  return ablation.components
    .map((component, row) => ({ component, row }))
    .filter(({ component }) => component.stack === stack && (component.head !== undefined) === heads);
}

function distinct<T>(items: T[]): T[] {
  return [...new Set(items)];
}

function arranged(found: Measured[], parts: Part[], columnOf: (component: Component) => number): Arranged {
  const cells = new Map(found.map((one) => [`${one.component.layer},${columnOf(one.component)}`, one]));
  return {
    layers: distinct(found.map(({ component }) => component.layer)).sort((a, b) => b - a),
    columns: distinct(found.map(({ component }) => columnOf(component))).sort((a, b) => a - b),
    parts,
    cell: (layer, column) => cells.get(`${layer},${column}`),
  };
}

/** Layer × whole component of one stack. */
export function wholeComponents(ablation: Ablation, stack: Stack): Arranged {
  const found = measured(ablation, stack, false);
  const parts = distinct(found.map(({ component }) => component.part));
  return arranged(found, parts, (component) => parts.indexOf(component.part));
}

/** Layer × head, one arrangement for each kind of attention in the stack. */
export function heads(ablation: Ablation, stack: Stack): Arranged[] {
  const found = measured(ablation, stack, true);
  return distinct(found.map(({ component }) => component.part)).map((part) => {
    const own = found.filter(({ component }) => component.part === part);
    return arranged(own, [part], (component) => component.head ?? 0);
  });
}
