/** A page in a frame of a notebook: its document is its own; a kernel behind the frame may run what it asks for.
 *
 * Messages are objects with a member `otoscope` that says what they are. Only the frame's parent is listened to, and the parent
 * listens to its frame alone: the origin of a sandboxed frame is "null" and tells nothing.
 */

import type { Host, Json, Progress } from "../host.ts";
import { documentOfThisPage } from "./file.ts";

/** What the page says. */
export type FromPage =
  | { otoscope: "height"; height: number }
  | { otoscope: "state"; state: string }
  | { otoscope: "act"; id: number; op: string; args: { [key: string]: Json } };

/** What it is told. */
export type ToPage =
  | { otoscope: "state"; state: string }
  | { otoscope: "progress"; id: number; progress: Progress }
  | { otoscope: "answer"; id: number; answer?: Json; error?: string };

interface Waiting {
  resolve: (answer: Json) => void;
  reject: (error: Error) => void;
  onProgress: ((progress: Progress) => void) | undefined;
}

export function isFramed(): boolean {
  return location.href.startsWith("about:srcdoc");
}

export function notebookHost(): Host {
  const ops = operations();
  const waiting = new Map<number, Waiting>();
  let last = 0;
  listen((message) => {
    if (message.otoscope === "state") return void followState(message.state);
    const one = waiting.get(message.id);
    if (message.otoscope === "progress") return one?.onProgress?.(message.progress);
    waiting.delete(message.id);
    if (message.error !== undefined) one?.reject(new Error(message.error));
    else one?.resolve(message.answer ?? null);
  });
  tellHeight();
  tellState();
  return {
    kind: "notebook",
    document: documentOfThisPage,
    can: (op) => ops.has(op),
    act: (op, args, { onProgress, signal } = {}) =>
      new Promise((resolve, reject) => {
        if (!ops.has(op)) return reject(new Error("No model is connected to this cell: show the page with doc.widget(model)."));
        const id = ++last;
        waiting.set(id, { resolve, reject, onProgress });
        // A kernel hears nothing while it works: what is under way is left to end there, or to the notebook's own stop.
        signal?.addEventListener("abort", () => {
          if (waiting.delete(id)) reject(new Error("Stopped waiting; interrupt the kernel to end what it is doing."));
        });
        say({ otoscope: "act", id, op, args });
      }),
  };
}

/** The operations that the kernel offers, as the page was made with them; none in a page that is merely displayed. */
function operations(): Set<string> {
  const told = document.getElementById("page")?.dataset.ops ?? "";
  return new Set(told.split(" ").filter(Boolean));
}

function say(message: FromPage): void {
  parent.postMessage(message, "*"); // a notebook's origin is not known here, and nothing secret is said
}

function listen(take: (message: ToPage) => void): void {
  addEventListener("message", (event: MessageEvent<ToPage | null>) => {
    if (event.source === parent && typeof event.data?.otoscope === "string") take(event.data);
  });
}

function tellHeight(): void {
  const page = document.getElementById("page") as HTMLElement;
  new ResizeObserver(() => say({ otoscope: "height", height: Math.ceil(page.getBoundingClientRect().height) })).observe(page);
}

/** What is chosen is kept in the frame's address, and the kernel knows it. */
function tellState(): void {
  addEventListener("hashchange", () => say({ otoscope: "state", state: location.hash.slice(1) }));
}

function followState(state: string): void {
  if (location.hash.slice(1) !== state) location.hash = `#${state}`;
}
