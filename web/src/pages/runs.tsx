/** All runs of a folder: bring a recording, find a run, open it, compare two. */

import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import "../css/runs.css";
import { ask, askJson, Refusal } from "../hosts/session.ts";
import { shortened } from "../model/numbers.ts";
import { type About, type Job, matching, type Order, type Run, sorted } from "../model/runs.ts";
import { Bring, type Options } from "../panels/runs/bring.tsx";
import { Jobs } from "../panels/runs/jobs.tsx";
import { List } from "../panels/runs/list.tsx";

interface Told {
  seen: string;
  unread: number;
  jobs: Job[];
  runs?: Run[];
}

const OFTEN = 400; // ms, while a job runs or files are still read
const SELDOM = 2000;

export function RunsPage({ about }: { about: About }) {
  const { runs, jobs, unread, trouble, look } = useRuns();
  const [order, setOrder] = useState<Order>({ by: "made", falling: true });
  const [wanted, setWanted] = useState("");
  const [chosen, setChosen] = useState<string[]>(chosenInHash);
  const { send, refused } = useSending(jobs, look);
  const found = useMemo(() => sorted(matching(runs ?? [], wanted), order), [runs, wanted, order]);
  const choose = (id: string) => setChosen((now) => (now.includes(id) ? now.filter((one) => one !== id) : [...now.slice(-1), id]));
  const here = chosen.filter((id) => runs?.some((run) => run.id === id));
  const cancel = (job: Job) => ask(`/api/jobs/${job.id}`, { method: "DELETE" }).then(look, look);
  const first = runs?.length === 0 && unread === 0;
  return (
    <main class="runs">
      <header>
        <p class="title" title={about.path}>
          otoscope · <bdi>{shortened(about.path, 120)}</bdi>
        </p>
        <h1>{first ? "Bring a recording, and see how a speech recogniser heard it." : counted(runs, unread)}</h1>
      </header>
      {(trouble || refused) && (
        <p class="trouble" role="alert">
          {trouble || refused}
        </p>
      )}
      <Bring about={about} first={first} send={send} />
      <Jobs jobs={jobs} cancel={cancel} />
      {first && <Welcome path={about.path} />}
      {!!runs?.length && (
        <>
          <div class="finding">
            <label class="search">
              Search <input type="search" value={wanted} placeholder="words, model, kind, note" onInput={(event) => setWanted(event.currentTarget.value)} />
            </label>
            <span class="note" aria-live="polite">
              {wanted ? `${found.length} of ${runs.length} shown` : here.length < 2 ? "Tick two runs to compare them." : ""}
            </span>
            <Compare chosen={here} />
          </div>
          <List runs={found} order={order} setOrder={setOrder} chosen={here} choose={choose} />
          {found.length === 0 && <p class="nothing">No run holds all of these words.</p>}
        </>
      )}
    </main>
  );
}

function Compare({ chosen }: { chosen: readonly string[] }) {
  if (chosen.length === 2) {
    return (
      <a class="way main" href={`/compare/${chosen[0]}/${chosen[1]}`}>
        Compare the two
      </a>
    );
  }
  return chosen.length === 1 ? <span class="note">One chosen; tick another.</span> : null;
}

/** What an empty folder means, and what comes of the first recording. */
function Welcome({ path }: { path: string }) {
  return (
    <div class="welcome">
      <p>
        The recording stays on this machine. In half a minute or so you get a page with what the model wrote, how sure it was of each
        word, which sound each word came from, and which parts of the model it hangs on. The page is kept as a file in{" "}
        <bdi>{shortened(path, 120)}</bdi>; it opens without this server, too.
      </p>
      <p>Pages that you put there, or that otoscope commands write there, appear here by themselves.</p>
    </div>
  );
}

function counted(runs: readonly Run[] | undefined, unread: number): string {
  if (!runs) return "Reading the folder…";
  const count = runs.length === 1 ? "1 run" : `${runs.length.toLocaleString("en")} runs`;
  return unread ? `${count}, reading ${unread.toLocaleString("en")} more…` : count;
}

function chosenInHash(): string[] {
  const named = new URLSearchParams(location.hash.slice(1)).get("with");
  return named ? [named] : [];
}

/** The list as the server has it, asked for again and again: often while something is under way. */
function useRuns() {
  const [state, setState] = useState<{ runs?: Run[]; jobs: Job[]; unread: number; trouble: string }>({ jobs: [], unread: 0, trouble: "" });
  const seen = useRef("");
  const timer = useRef(0);
  const alive = useRef(true);
  const look = useCallback(async () => {
    clearTimeout(timer.current);
    let wait = SELDOM;
    try {
      const told = await askJson<Told>(`/api/runs?seen=${seen.current}`);
      seen.current = told.seen;
      const { runs, jobs, unread } = told;
      setState((now) => ({ ...(now.runs && { runs: now.runs }), ...(runs && { runs }), jobs, unread, trouble: "" }));
      if (unread || jobs.some((job) => job.state === "running" || job.state === "waiting")) wait = OFTEN;
    } catch (error) {
      setState((now) => ({ ...now, trouble: (error as Error).message }));
      if (error instanceof Refusal && error.status === 401) return;
    }
    clearTimeout(timer.current);
    if (alive.current) timer.current = window.setTimeout(look, wait);
  }, []);
  useEffect(() => {
    alive.current = true;
    void look();
    return () => {
      alive.current = false;
      clearTimeout(timer.current);
    };
  }, [look]);
  return { ...state, look };
}

/** Sends recordings, and opens the page of one as soon as it is there, unless others of this tab are still on their way. */
function useSending(jobs: readonly Job[], look: () => void) {
  const [refused, setRefused] = useState("");
  const mine = useRef(new Set<string>());
  const send = async (sound: Blob, name: string, options: Options) => {
    setRefused("");
    const query = new URLSearchParams({ name, options: JSON.stringify(options) });
    try {
      mine.current.add((await askJson<Job>(`/api/explain?${query}`, { method: "POST", body: sound })).id);
      look();
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  useEffect(() => {
    const ours = jobs.filter((job) => mine.current.has(job.id));
    const [done] = ours.filter((job) => job.state === "done");
    const pending = ours.some((job) => job.state === "waiting" || job.state === "running");
    for (const job of ours) if (job.state !== "waiting" && job.state !== "running") mine.current.delete(job.id);
    if (done && !pending) location.assign(`/run/${(done.answer as { run: string }).run}`);
  }, [jobs]);
  return { send, refused };
}
