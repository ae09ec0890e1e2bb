/** What a page may ask of the place it is shown in: a file, a local server, or a cell of a notebook. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { CurveDoc, ExplainDoc, FeaturesDoc, LensDoc, SweepDoc } from "./contract.ts";

export type Doc = CurveDoc | ExplainDoc | FeaturesDoc | LensDoc | SweepDoc;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Progress {
  done: number;
  total: number;
  stage: string;
}

export interface Host {
  kind: "file" | "server" | "notebook";
  document(): Promise<Doc>;
  /** Whether something can be run here; where not, controls stay visible, and show the Python line that does the same. */
  can(op: string): boolean;
  /** Runs it and resolves to its answer; rejects with an Error whose message is for people. */
  act(op: string, args: { [key: string]: Json }, options?: { onProgress?: (progress: Progress) => void; signal?: AbortSignal }): Promise<Json>;
}

export const HostContext = createContext<Host | null>(null);

export function useHost(): Host {
  const host = useContext(HostContext);
  if (!host) throw new Error("Nothing hosts this page.");
  return host;
}
