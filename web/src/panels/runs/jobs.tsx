/** Recordings on their way to a page: what waits, how far the one under way is, and a way to call it off. */

import { shortened } from "../../model/numbers.ts";
import type { Job } from "../../model/runs.ts";

export function Jobs({ jobs, cancel }: { jobs: readonly Job[]; cancel: (job: Job) => void }) {
  if (jobs.length === 0) return null;
  return (
    <ul class="jobs" aria-label="Recordings on their way" data-testid="jobs">
      {jobs.map((job) => (
        <li key={job.id} data-state={job.state}>
          <bdi class="name" title={job.title}>
            {shortened(job.title, 60)}
          </bdi>
          <State job={job} />
          {(job.state === "waiting" || job.state === "running") && (
            <button type="button" onClick={() => cancel(job)}>
              Cancel
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

function State({ job }: { job: Job }) {
  switch (job.state) {
    case "waiting":
      return <span class="state">{job.position ? `waits for ${job.position} before it` : "begins"}</span>;
    case "running":
      return (
        <span class="state" aria-live="polite">
          <progress {...(job.total ? { value: job.done, max: job.total } : {})} aria-label={`Explaining ${shortened(job.title, 60)}`} />
          <bdi>{shortened(job.stage, 80)}</bdi>
          {job.total > 0 && <span class="share">{Math.floor((100 * job.done) / job.total)} %</span>}
        </span>
      );
    case "done":
      return <a href={`/run/${(job.answer as { run: string }).run}`}>Open</a>;
    case "failed":
      return (
        <span class="state trouble" role="alert">
          <bdi>{shortened(`${job.reason} ${job.remedy}`, 600)}</bdi>
        </span>
      );
    case "cancelled":
      return <span class="state">cancelled; nothing was kept</span>;
  }
}
