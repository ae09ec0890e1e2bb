/** Search and the two sliders, with what they hide. */

import { useMemo, useState } from "preact/hooks";
import { found } from "../../model/graph.ts";
import { type GraphProps, NodeName, shortPlace } from "./shared.tsx";

interface Props extends GraphProps {
  setShares: (nodes: number, edges: number) => void;
  search: (nodes: number[]) => void;
}

export function Controls(props: Props) {
  const { graph, shown, view, setShares } = props;
  return (
    <div class="graph-controls">
      <Search {...props} />
      <Slider
        label="Influence of nodes"
        value={view.nodes}
        hidden={graph.count - shown.nodes}
        what="nodes"
        set={(value) => setShares(value, view.edges)}
      />
      <Slider label="Strength of edges" value={view.edges} hidden={graph.edges - shown.edges} what="edges" set={(value) => setShares(view.nodes, value)} />
    </div>
  );
}

function Slider({ label, value, hidden, what, set }: { label: string; value: number; hidden: number; what: string; set: (value: number) => void }) {
  return (
    <label class="slider">
      <span>{label}</span>
      <input type="range" min={0.1} max={1} step={0.01} value={value} aria-valuetext={`${Math.round(100 * value)} %, ${hidden} ${what} hidden`} onInput={(event) => set(Number(event.currentTarget.value))} />
      <span class="note">
        {Math.round(100 * value)} %, <span data-testid={`hidden-${what}`}>{hidden.toLocaleString("en")}</span> hidden
        {hidden > 0 && value < 1 && (
          <>
            {" "}
            <button type="button" class="link" onClick={() => set(1)}>
              show
            </button>
          </>
        )}
      </span>
    </label>
  );
}

function Search(props: Props) {
  const { graph, view, choose, search, hovered } = props;
  const [wanted, setWanted] = useState("");
  const matches = useMemo(() => found(graph, wanted, view.annotations), [graph, wanted, view.annotations]);
  const change = (text: string) => {
    setWanted(text);
    search(text.trim() ? found(graph, text, view.annotations) : []);
  };
  return (
    <div class="graph-search">
      <label>
        <span>Search</span>
        <input type="search" value={wanted} placeholder="word, token, feature number" onInput={(event) => change(event.currentTarget.value)} />
      </label>
      {wanted.trim() && (
        <div class="found" role="group" aria-label="Found nodes">
          <p class="note">{matches.length} found{matches.length > 30 && ", 30 shown"}</p>
          <ul>
            {matches.slice(0, 30).map((node) => (
              <li key={node}>
                <button type="button" onClick={() => (choose(node), change(""))} onPointerEnter={() => hovered.set(node)} onPointerLeave={() => hovered.set(-1)}>
                  <NodeName graph={graph} node={node} annotations={view.annotations} length={40} /> <small>{shortPlace(graph.data, graph, node)}</small>
                </button>
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}
