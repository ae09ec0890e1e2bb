/** A page of a local server: the document comes from there, what is written is kept there, and its model runs what is asked. */

import type { Doc, Host, Json } from "../host.ts";
import type { About, Job } from "../model/runs.ts";
import { ask, askJson, linesOf, Refusal, sendJson, takeKey } from "./session.ts";

const KEEPALIVE = 60_000; // bytes that browsers let outlive their page

export function serverHost(): Host {
  takeKey();
  const [run, beside] = runsInPath(location.pathname);
  let ops: readonly string[] = [];
  /** Which version of its file this page shows: what is written here is never filed under one that took its place. */
  let version = "";
  const shownOf = (id: string): Record<string, string> => (version && id === run ? { "If-Match": version } : {});
  /** Two runs' graphs are shown as one document of two graphs: the other one is the other run's own. */
  const graphIn = (place: Json | undefined): [string, Json] => (place === "other" && beside ? [beside, "graph"] : [run, place ?? null]);
  return {
    kind: "server",
    async document() {
      const [about, answer] = await Promise.all([askJson<About>("/api/about"), ask(`/api/runs/${run}/document`)]);
      ops = about.ops;
      version = answer.headers.get("ETag") ?? "";
      return (await answer.json()) as Doc;
    },
    can: (op) => ops.includes(op),
    async act(op, args, { onProgress, signal } = {}) {
      const [of, place] = graphIn(args.place);
      const told = args.place === undefined ? args : { ...args, place };
      const answer = await sendJson("/api/act", "POST", { run: of, op, args: told }, { headers: shownOf(of), ...(signal ? { signal } : {}) });
      for await (const job of linesOf<Job>(answer)) {
        if (job.state === "failed") throw new Refusal(200, job.reason ?? "It failed.", job.remedy ?? "");
        if (job.state === "cancelled") throw new DOMException("It was cancelled.", "AbortError");
        if (job.state === "done") return job.answer as Json;
        onProgress?.({ done: job.done, total: job.total, unit: job.unit, stage: stageOf(job) });
      }
      throw new Refusal(0, "The server went away.", "See whether `otoscope serve` still runs.");
    },
    async annotate(place, annotations) {
      const [of, at] = graphIn(place) as [string, string];
      const told = { place: at, annotations };
      const keepalive = JSON.stringify(told).length < KEEPALIVE; // it then arrives even if the page is left meanwhile
      await sendJson(`/api/runs/${of}/annotations`, "PUT", told, { keepalive, headers: shownOf(of) });
    },
    async writeNote(text) {
      await sendJson(`/api/runs/${run}/note`, "PUT", { text }, { headers: shownOf(run) });
    },
  };
}

/** The ids of the run that an address names, the left one of a comparison, and of the right one; "" where it names none. */
export function runsInPath(path: string): [string, string] {
  const named = /^\/(?:run|beside|compare)\/([0-9a-f]{1,40})(?:\/([0-9a-f]{1,40}))?$/.exec(path);
  return [named?.[1] ?? "", named?.[2] ?? ""];
}

/** The run as a file that opens without a server, with all that was written onto it. */
export async function copyOf(run: string): Promise<Blob> {
  return (await ask(`/api/runs/${run}/page`)).blob();
}

function stageOf(job: Job): string {
  if (job.state !== "waiting") return job.stage;
  return job.position ? `Waiting; ${job.position} before it` : "Waiting";
}
