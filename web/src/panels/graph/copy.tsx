/** The same again elsewhere: as Python, as a command, and what was written on the graph as a file's text. */

import { useState } from "preact/hooks";
import { copied } from "../../clipboard.ts";
import type { Graph } from "../../model/graph.ts";
import { commandOf, pythonOf, type View } from "../../model/graph-state.ts";

export function CopyAs({ graph, view }: { graph: Graph; view: View }) {
  const texts = {
    "Copy as Python": pythonOf(graph.data, view),
    "Copy the command": commandOf(graph.data),
    "Copy names and groups": JSON.stringify(view.annotations, null, 1),
  };
  const [told, setTold] = useState("");
  const [shown, setShown] = useState<keyof typeof texts | null>(null);
  const copy = async (name: keyof typeof texts) => {
    setShown(name);
    const done = await copied(texts[name]);
    setTold(done ? "Copied." : "This place does not let a page copy; select the text and copy it.");
  };
  return (
    <div class="graph-copy">
      <p class="actions">
        {(Object.keys(texts) as (keyof typeof texts)[]).map((name) => (
          <button key={name} type="button" onClick={() => void copy(name)}>
            {name}
          </button>
        ))}
        <span class="note" role="status">
          {told}
        </span>
      </p>
      {shown && (
        <pre tabIndex={0} data-testid="copied">
          <bdi>{texts[shown]}</bdi>
        </pre>
      )}
    </div>
  );
}
