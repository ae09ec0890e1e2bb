/** The list of runs: what a server tells of them, searched and sorted. */

import type { Json } from "../host.ts";

export interface Run {
  id: string;
  path: string;
  form: "page" | "folder";
  made: number; // seconds since 1970
  size: number; // bytes
  kind: string;
  title: string;
  model: string;
  text: string;
  duration: number | null; // seconds of sound
  flags: string[];
  broken: string | null; // why it cannot be opened
  note?: string;
}

export interface Job {
  id: string;
  what: string;
  title: string;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  done: number;
  total: number; // 0 while unknown
  unit: string; // of done and total, in the plural
  stage: string;
  position?: number; // jobs before it
  reason?: string;
  remedy?: string;
  answer?: Json;
}

export interface About {
  folder: string;
  path: string;
  version: string;
  models: { name: string; here: boolean; megabytes: number; chosen: boolean; languages?: string[] }[]; // none: English alone
  monitors: { id: string; name: string; model: string; given: boolean }[]; // those that have a folder; given: named at the start
  ops: string[];
  upload: number; // bytes
}

export type Column = "title" | "model" | "kind" | "duration" | "made";

export interface Order {
  by: Column;
  falling: boolean;
}

/** Where a column begins when it is first chosen: dates and lengths from the greatest down, names from A on. */
export function orderBy(by: Column, now: Order): Order {
  return now.by === by ? { by, falling: !now.falling } : { by, falling: by === "made" || by === "duration" };
}

/** Runs that hold every word of what is wanted, anywhere. */
export function matching(runs: readonly Run[], wanted: string): Run[] {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter((run) => {
    const all = [run.title, run.model, run.kind, kindOf(run), run.text, run.path, run.note ?? "", ...run.flags].join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

const alphabet = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

export function sorted(runs: readonly Run[], { by, falling }: Order): Run[] {
  const sign = falling ? -1 : 1;
  return [...runs].sort((a, b) => {
    if (by === "made") return sign * (a.made - b.made);
    if (by === "duration") return sign * ((a.duration ?? -1) - (b.duration ?? -1));
    if (by === "kind") return sign * alphabet.compare(kindOf(a), kindOf(b));
    return sign * alphabet.compare(a[by], b[by]);
  });
}

/** Kinds of documents by the command that makes them, where it has another name. */
const MADE_BY: Record<string, string> = { graph: "trace", sweep: "patch", intervention: "intervene" };

/** A run's kind as people call it. */
export function kindOf(run: Run): string {
  return MADE_BY[run.kind] ?? run.kind;
}

/** Where a run is opened. */
export function addressOf(run: Run): string {
  return `/${run.form === "page" ? "run" : "folder"}/${run.id}`;
}

/** 75 as "1:15". */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A time as people write it: today's by the clock, others by the day. */
export function when(made: number, now = new Date()): string {
  const date = new Date(made * 1000);
  const today = date.toDateString() === now.toDateString();
  return today
    ? `today ${date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`
    : date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

export interface Word {
  text: string;
  same: boolean;
}

/** Two texts word by word, and which words the other has at the same place of the longest common row of words. */
export function difference(a: string, b: string): [Word[], Word[]] {
  const [left, right] = [wordsOf(a), wordsOf(b)];
  const [n, m] = [left.length, right.length];
  const longest = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1)); // of what is left from i and j on
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      longest[i]![j] = plain(left[i]!) === plain(right[j]!) ? longest[i + 1]![j + 1]! + 1 : Math.max(longest[i + 1]![j]!, longest[i]![j + 1]!);
    }
  }
  const told: [Word[], Word[]] = [[], []];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && plain(left[i]!) === plain(right[j]!)) {
      told[0].push({ text: left[i++]!, same: true });
      told[1].push({ text: right[j++]!, same: true });
    } else if (j >= m || (i < n && longest[i + 1]![j]! >= longest[i]![j + 1]!)) told[0].push({ text: left[i++]!, same: false });
    else told[1].push({ text: right[j++]!, same: false });
  }
  return told;
}

function wordsOf(text: string): string[] {
  return text.split(/\s+/).filter(Boolean).slice(0, 1000);
}

function plain(word: string): string {
  return word.toLowerCase().replace(/^\p{P}+|\p{P}+$/gu, "");
}
