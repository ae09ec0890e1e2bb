/** The pages that only a server has: the list of runs, a comparison, the directory of a job. */

import type { JSX } from "preact";
import type { Doc } from "../host.ts";
import { askJson, Refusal } from "../hosts/session.ts";
import type { About, Run } from "../model/runs.ts";
import { ComparePage } from "./compare.tsx";
import { type Description, FolderPage } from "./folder.tsx";
import { RunsPage } from "./runs.tsx";

/** The page at an address, or undefined where that is a run to be shown by its kind. */
export async function servedPage(path: string): Promise<JSX.Element | undefined> {
  const [, place, one = "", other = ""] = path.split("/");
  if (place === "") {
    const about = await askJson<About>("/api/about");
    document.title = `${about.folder} · otoscope`;
    return <RunsPage about={about} />;
  }
  if (place === "compare") {
    document.title = "Two runs · otoscope";
    const [runs, ...docs] = await Promise.all([runsOf([one, other]), documentOf(one), documentOf(other)]);
    return <ComparePage runs={runs as [Run, Run]} docs={docs} />;
  }
  if (place === "folder") {
    const [[run], described] = await Promise.all([runsOf([one]), askJson<Description>(`/api/runs/${one}/description`)]);
    return <FolderPage described={described} title={run!.title} />;
  }
  return undefined;
}

function documentOf(run: string): Promise<Doc> {
  return askJson<Doc>(`/api/runs/${run}/document`);
}

async function runsOf(ids: string[]): Promise<Run[]> {
  const { runs } = await askJson<{ runs: Run[] }>("/api/runs");
  return ids.map((id) => {
    const found = runs.find((run) => run.id === id);
    if (!found) throw new Refusal(404, "That run is not in this folder, or no longer.", "Go back to the list of runs.");
    return found;
  });
}
