/** What supplied the chosen node, and what it supplied, signed, as shares of what the target was given. */

import { useEffect, useRef, useState } from "preact/hooks";
import { change } from "../../model/numbers.ts";
import { canSplit, splitOf } from "../../model/graph-edges.ts";
import { HeadsOfEdge } from "./edge.tsx";
import { type GraphProps, NodeName, percent, shortPlace } from "./shared.tsx";

const FIRST = 12;

export function Connections(props: GraphProps) {
  return (
    <div class="connections">
      <List {...props} side="inputs" />
      <List {...props} side="outputs" />
    </div>
  );
}

function List(props: GraphProps & { side: "inputs" | "outputs" }) {
  const { graph, chosen, side, hovered, shown } = props;
  const [all, setAll] = useState(false);
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => setAll(false), [chosen]);
  useEffect(() => hovered.follow((node) => mark(list.current, node)), [hovered]);
  const edges = (side === "inputs" ? graph.into : graph.from)[chosen] as Int32Array;
  const hidden = edges.filter((edge) => !shown.edge[edge]).length;
  const rest = graph.rest(chosen);
  const expanded = graph.node(chosen).inputs !== undefined;
  return (
    <section class="edge-list" aria-label={side}>
      <h3>{side === "inputs" ? "What supplied it" : "What it supplied"}</h3>
      {side === "inputs" && !expanded && <p class="note">{graph.node(chosen).kind === "feature" ? "Nothing was traced into it." : "It is a source: nothing is behind it."}</p>}
      {side === "outputs" && edges.length === 0 && <p class="note">{graph.node(chosen).kind === "target" ? "It is what is explained." : "Nothing that is shown."}</p>}
      <ol ref={list}>
        {[...edges.slice(0, all ? edges.length : FIRST)].map((edge) => (
          <Row key={edge} {...props} edge={edge} other={(side === "inputs" ? graph.source : graph.target)[edge]!} hidden={!shown.edge[edge]} />
        ))}
        {side === "inputs" && expanded && rest.size > 0.0005 && (
          <li class="rest">
            <span class="share">{percent(rest.share)}</span>
            <span>everything that is not shown, {(100 * rest.size).toFixed(0)} % of the input by size</span>
          </li>
        )}
      </ol>
      {edges.length > FIRST && (
        <button type="button" class="link" onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${edges.length}`}
        </button>
      )}
      {hidden > 0 && <p class="note">{hidden} of {edges.length} are hidden in the graph by the sliders; lists show all.</p>}
    </section>
  );
}

function Row({ graph, edge, other, hidden, choose, hovered, view, chosen, place }: GraphProps & { edge: number; other: number; hidden: boolean }) {
  const [open, setOpen] = useState(false);
  const share = graph.share[edge] as number;
  const splits = splitOf(graph, edge) !== undefined || canSplit(graph, edge);
  return (
    <li data-node={other} class={hidden ? "hidden-edge" : undefined} onPointerEnter={() => hovered.set(other)} onPointerLeave={() => hovered.set(-1)}>
      <button type="button" class="edge" onClick={() => choose(other)} onFocus={() => hovered.set(other)} onBlur={() => hovered.set(-1)} title={`${change(graph.weight[edge]!)} ${graph.target[edge] === chosen ? "of what it sums to" : "of what that node sums to"}`}>
        <span class={share < 0 ? "share falls" : "share"} style={{ "--amount": Math.min(1, 4 * Math.abs(share)).toFixed(3) }}>
          {percent(share)}
        </span>
        <span class="who">
          <NodeName graph={graph} node={other} annotations={view.annotations} />
          <small>{shortPlace(graph.data, graph, other)}</small>
        </span>
      </button>
      {splits && (
        <button type="button" class="heads" aria-expanded={open} onClick={() => setOpen(!open)}>
          heads
        </button>
      )}
      {splits && open && <HeadsOfEdge graph={graph} edge={edge} view={view} place={place} />}
    </li>
  );
}

function mark(list: HTMLElement | null, node: number): void {
  for (const row of list?.children ?? []) row.classList.toggle("hovered", (row as HTMLElement).dataset.node === String(node));
}
