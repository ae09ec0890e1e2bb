/** The directory of a job: what it is, what it depends on, and the files in it. */

import "../css/runs.css";
import type { Json } from "../host.ts";
import { shortened } from "../model/numbers.ts";

export interface Description {
  settings: Record<string, Json>;
  versions: Record<string, string>;
  files: { name: string; size: number }[];
}

export function FolderPage({ described, title }: { described: Description; title: string }) {
  return (
    <main class="runs">
      <p class="title">
        <a href="/">← All runs</a>
      </p>
      <h1>
        <bdi>{shortened(title, 200)}</bdi>
      </h1>
      <p class="lead">The directory of a job. It can be gone on with by the command that made it; its parts are no page to be opened.</p>
      <Facts title="Settings" facts={described.settings} />
      <Facts title="Made with" facts={described.versions} />
      <Facts title="Files, in bytes" facts={Object.fromEntries(described.files.map(({ name, size }) => [name, size]))} />
    </main>
  );
}

function Facts({ title, facts }: { title: string; facts: Record<string, Json> }) {
  return (
    <section>
      <h2>{title}</h2>
      <dl>
        {Object.entries(facts).map(([name, value]) => (
          <div key={name}>
            <dt>
              <bdi>{shortened(name, 80)}</bdi>
            </dt>
            <dd>
              <bdi>{shortened(typeof value === "string" ? value : JSON.stringify(value), 300)}</bdi>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
