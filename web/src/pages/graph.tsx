/** One attribution graph, or two beside each other. */

import "../css/graph.css";
import type { GraphDoc } from "../contract.ts";
import { useKeeping } from "../panels/keeping.tsx";
import { shortened } from "../model/numbers.ts";
import { GraphPanel } from "../panels/graph/panel.tsx";

export function GraphPage({ doc }: { doc: GraphDoc }) {
  const [keep, trouble] = useKeeping("graph");
  const versions = Object.entries(doc.versions).map(([name, version]) => `${name} ${version}`);
  return (
    <main class="graph-page">
      <header>
        <h1>
          <bdi>{shortened(doc.title, 200)}</bdi>
        </h1>
      </header>
      {trouble}
      <GraphPanel graph={doc.graph} sound={doc.sound} other={doc.other} otherSound={doc.other_sound} resources={doc.resources} onAnnotations={keep} addressed />
      <footer>
        <h2>Reading this page</h2>
        <ul>
          {doc.notes.map((note, i) => (
            <li key={i}>
              <bdi>{note}</bdi>
            </li>
          ))}
        </ul>
        {versions.length > 0 && (
          <p class="note">
            Made with <bdi>{shortened(versions.join(", "), 400)}</bdi>.
          </p>
        )}
      </footer>
    </main>
  );
}
