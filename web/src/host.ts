/** What a page may ask of the place it is shown in: a file, a local server, or a cell of a notebook. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type {
  Annotations,
  CurveDoc,
  ExplainDoc,
  FeaturesDoc,
  GraphDoc,
  LensDoc,
  Outcome,
  SweepDoc,
} from "./contract.ts";

export type Doc = CurveDoc | ExplainDoc | FeaturesDoc | GraphDoc | LensDoc | Outcome | SweepDoc;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Progress {
  done: number;
  total: number;
  unit?: string; // of both, in the plural
  stage: string;
}

export interface Host {
  kind: "file" | "server" | "notebook";
  document(): Promise<Doc>;
  /** Whether something can be run here; where not, controls stay visible, and show the Python line that does the same. */
  can(op: string): boolean;
  /** Keeps what a person wrote onto a graph, where the host can. `place` leads to the graph in the document: "graph" for that of a
   * graph document, "circuits/0/graph" for the first circuit of an explained clip. `document()` gives it back as the graph's
   * `annotations`. */
  annotate?(place: string, annotations: Annotations): Promise<void>;
  /** Keeps the person's note on the whole document, given back as its `note`; "" takes it away. */
  writeNote?(text: string): Promise<void>;
  /** Runs it and resolves to its answer; rejects with an Error whose message is for people. */
  act(op: string, args: { [key: string]: Json }, options?: { onProgress?: (progress: Progress) => void; signal?: AbortSignal }): Promise<Json>;
}

export const HostContext = createContext<Host | null>(null);

export function useHost(): Host {
  const host = useContext(HostContext);
  if (!host) throw new Error("Nothing hosts this page.");
  return host;
}
