/** An attribution graph with everything that can be done with it; works on a page of its own and inside others. */

import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Annotations, GraphData, Resource, Sound } from "../../contract.ts";
import { called, Graph, placeOf } from "../../model/graph.ts";
import { onlyHere } from "../../model/graph-compare.ts";
import { prune, type Shown, usualShare } from "../../model/graph-pruning.ts";
import { annotationsOf, hashWith, type Held, heldIn, sameHeld, type View } from "../../model/graph-state.ts";
import { resourceUrl } from "../../model/resources.ts";
import { Watched } from "../../model/store.ts";
import { shortened, visible } from "../../model/numbers.ts";
import type { Linked } from "../../linked.ts";
import { Figure } from "../figure.tsx";
import { usePlayer } from "../player.ts";
import { GraphCanvas } from "./canvas.tsx";
import { ChosenNode } from "./chosen.tsx";
import { Compare } from "./compare.tsx";
import { Controls } from "./controls.tsx";
import { CopyAs } from "./copy.tsx";
import { Left } from "./left.tsx";
import { useLinking } from "./linking.ts";
import { Connections } from "./lists.tsx";
import type { GraphProps } from "./shared.tsx";
import { Story } from "./story.tsx";
import { Subgraph } from "./subgraph.tsx";

export interface GraphPanelProps {
  graph: GraphData;
  sound?: Sound | undefined;
  /** Name of the resource with the sound. */
  audio?: string;
  resources?: Record<string, Resource>;
  other?: GraphData | undefined;
  otherSound?: Sound | undefined;
  /** Whether what is chosen is kept in the address: only one panel of a page can. */
  addressed?: boolean;
  /** Where the first graph is in the document, as a model that acts on it is told. */
  place: string;
  /** What the pointer is on elsewhere on the page. */
  linked?: Linked;
  /** Whether the account in words is shown above. */
  story?: boolean;
  /** Called with what a person wrote on the first or on the other graph, where the host keeps it; else the address does. */
  onAnnotations?: ((annotations: Annotations, which: 0 | 1) => void) | undefined;
}

const NONE: Record<string, Resource> = {};

export function GraphPanel(props: GraphPanelProps) {
  const { resources = NONE, addressed = false, story = true } = props;
  const graphs = useMemo(() => [new Graph(props.graph), ...(props.other ? [new Graph(props.other)] : [])], [props.graph, props.other]);
  const [which, setWhich] = useState<0 | 1>(0);
  const graph = graphs[which]!;
  const [view, setView] = useView(graphs, which, addressed, props.onAnnotations);
  const shown = useMemo(() => prune(graph, view.nodes, view.edges), [graph, view.nodes, view.edges]);
  const chosen = graph.index(view.node) ?? graph.data.targets[0]!.node;
  const target = useTarget(graph, chosen);
  const hovered = useMemo(() => new Watched(-1), [graph]);
  useLinking(props.linked, graph, shown.node, hovered);
  const [matches, setMatches] = useState<number[]>([]);
  const marked = useMemo(() => (graphs.length > 1 ? onlyHere(graph, graphs[1 - which]!) : undefined), [graphs, graph, which]);
  const sound = which ? props.otherSound : props.sound;
  const audio = which ? "other-audio" : (props.audio ?? "audio");
  const url = useMemo(() => resourceUrl({ resources }, audio), [resources, audio]);
  const cursor = useRef<((seconds: number) => void) | null>(null);
  const player = usePlayer((time) => cursor.current?.(time));

  const choose = useCallback((node: number) => setView((now) => (node < 0 ? now : { ...now, node: graph.node(node).id })), [graph, setView]);
  const annotate = useCallback((change: (annotations: Annotations) => Annotations) => setView((now) => ({ ...now, annotations: change(now.annotations) })), [setView]);
  const pin = useCallback((node: number) => annotate((now) => ({ ...now, pins: toggled(now.pins, graph.node(node).id) })), [annotate, graph]);
  const play = useMemo(() => {
    if (!url) return undefined;
    return (i: number) => {
      const { start, end } = graph.node(i);
      if (start !== undefined && end !== undefined) player.play({ start, end });
    };
  }, [url, graph, player.play]);
  const shared: GraphProps = { graph, shown, view, chosen, target, hovered, choose, pin, annotate, play, resources, place: which ? "other" : props.place };
  const show = (next: 0 | 1, id?: string) => {
    setWhich(next);
    if (id !== undefined) setView((now) => ({ ...now, node: id }));
  };
  return (
    <div class="graph-panel" data-node={graph.node(chosen).id} data-linking={props.linked ? "" : undefined}>
      <audio ref={player.element} src={url} preload="auto" />
      {graphs.length > 1 && <Compare {...shared} graphs={graphs as [Graph, Graph]} which={which} show={show} />}
      {story && <Story {...shared} />}
      <Controls {...shared} setShares={(nodes, edges) => setView((now) => ({ ...now, nodes, edges }))} search={setMatches} />
      <div class="graph-columns">
        <div class="graph-main">
          <Figure name="graph" title={`What supplied ${nameOf(graph, target)}`} about={aboutOf(graph, shown, chosen, view.annotations)}>
            <GraphCanvas {...shared} sound={sound} cursor={cursor} marked={marked} matches={matches} />
            <Legend hears={graph.data.segments.length > 0} />
          </Figure>
          <Subgraph {...shared} preview={setMatches} />
        </div>
        <div class="graph-side">
          <ChosenNode {...shared} />
          <Connections {...shared} />
        </div>
      </div>
      <CopyAs graph={graph} view={view} />
      <Left {...shared} />
    </div>
  );
}

function nameOf(graph: Graph, target: number): string {
  return `“${shortened(visible(graph.node(target).label), 60)}”`;
}

/** The sentence under the title of a saved picture. */
function aboutOf(graph: Graph, shown: Shown, chosen: number, annotations: Annotations): string {
  const name = shortened(visible(called(graph.node(chosen), annotations)), 80);
  return `${shown.nodes} nodes and ${shown.edges} edges of one run’s attribution graph; thick: the edges of ${name}, ${placeOf(graph, chosen)}.`;
}

function Legend({ hears }: { hears: boolean }) {
  return (
    <p class="graph-legend">
      <span class="key for"><span class="stroke" />for</span> <span class="key against"><span class="stroke" />against</span> <span class="key writing">● {hears ? "feature of the decoder" : "feature"}</span>
      {hears && <span class="key hearing">▬ ● sound and features of the encoder</span>} <span class="key input">■ token ◆ error ▲ bias</span>
      <span>Larger: more influence.</span> <span data-picture="no">Click to choose, Shift and click to pin; arrow keys move.</span>
    </p>
  );
}

function toggled(ids: string[], id: string): string[] {
  return ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id];
}

/** What is explained stays while other nodes are looked at. */
function useTarget(graph: Graph, chosen: number): number {
  const last = useRef(-1);
  const targets = graph.data.targets.map(({ node }) => node);
  if (targets.includes(chosen)) last.current = chosen;
  return targets.includes(last.current) ? last.current : targets[0]!;
}

type Change = (change: (view: View) => View) => void;

/** The view of one of the graphs, kept in the address where it may be; another address changes it. */
function useView(graphs: Graph[], which: 0 | 1, addressed: boolean, onAnnotations: GraphPanelProps["onAnnotations"]): [View, Change] {
  const datas = useMemo(() => graphs.map(({ data }) => data) as [GraphData, ...GraphData[]], [graphs]);
  const usual = useMemo(() => usualShare(graphs[0]!), [graphs]);
  const notes = onAnnotations === undefined;
  const [held, setHeld] = useState(() => heldIn(addressed ? location.hash : "", datas, usual, datas.map(annotationsOf), notes));
  const latest = useRef(held);
  const known = useRef(location.hash); // the address that was read or written last
  const change = useCallback<Change>((next) => {
    const before = viewOf(latest.current, which);
    const { annotations, ...looked } = next(before);
    latest.current = { ...looked, written: latest.current.written.with(which, annotations) };
    setHeld(latest.current);
    if (annotations !== before.annotations) onAnnotations?.(annotations, which);
  }, [onAnnotations, which]);
  useEffect(() => {
    if (!addressed) return undefined;
    // A slider that is dragged would fill the history: the address follows once it rests.
    const later = setTimeout(() => {
      const hash = hashWith(location.hash, latest.current, datas, notes);
      if (!location.hash && hash === hashWith("", heldIn("", datas, usual, datas.map(annotationsOf)), datas)) return;
      known.current = hash;
      if (location.hash !== hash) location.hash = hash;
    }, 150);
    return () => clearTimeout(later);
  }, [held, addressed, datas, usual, notes]);
  useLayoutEffect(() => {
    if (!addressed) return undefined;
    const follow = () => {
      if (sameHeld(location.hash, known.current)) return; // others write there, too
      known.current = location.hash;
      latest.current = heldIn(location.hash, datas, usual, latest.current.written, notes);
      setHeld(latest.current);
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [addressed, datas, usual, notes]);
  return [useMemo(() => viewOf(held, which), [held, which]), change];
}

function viewOf({ written, ...looked }: Held, which: 0 | 1): View {
  return { ...looked, annotations: written[which]! };
}
