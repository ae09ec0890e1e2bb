/** The graph itself: a canvas for what stays, one for what is chosen and one for what the pointer is on. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { drawBase, drawChosen, drawHovered, type Scene } from "../../draw/graph.ts";
import { type Layout, layoutOf, nearest, neighbour } from "../../model/graph-layout.ts";
import { placeOf } from "../../model/graph.ts";
import { shortened, visible } from "../../model/numbers.ts";
import { useDark } from "../common.tsx";
import { type GraphProps, NodeName, percent } from "./shared.tsx";
import { SoundRows, type SoundProps } from "./sound.tsx";

interface Props extends GraphProps, SoundProps {
  marked: Uint8Array | undefined;
  matches: number[];
}

export function GraphCanvas(props: Props) {
  const { graph, shown, chosen, hovered, view, choose, pin, play, marked, matches } = props;
  const dark = useDark();
  const box = useRef<HTMLDivElement>(null);
  const base = useRef<HTMLCanvasElement>(null);
  const middle = useRef<HTMLCanvasElement>(null);
  const top = useRef<HTMLCanvasElement>(null);
  const room = useRoom(box);
  const visibleNodes = useMemo(() => withChosen(shown.node, chosen), [shown, chosen]);
  const layout = useMemo(() => layoutOf(graph, visibleNodes, room), [graph, visibleNodes, room]);
  const scene = useMemo<Scene>(() => ({ graph, layout, node: visibleNodes, edge: shown.edge, marked, dark }), [graph, layout, visibleNodes, shown, marked, dark]);
  const rings = useMemo(() => {
    const pinned = [...view.annotations.pins, ...view.annotations.supernodes.flatMap(({ nodes }) => nodes)];
    return new Set([...pinned.map((id) => graph.index(id)).filter((i) => i !== undefined), ...matches]);
  }, [graph, view.annotations, matches]);

  useLayoutEffect(() => drawBase(base.current as HTMLCanvasElement, scene), [scene]);
  useLayoutEffect(() => {
    drawChosen(middle.current as HTMLCanvasElement, scene, chosen, rings);
  }, [scene, chosen, rings]);
  useLayoutEffect(() => {
    const draw = (on: number) => drawHovered(top.current as HTMLCanvasElement, scene, on);
    draw(hovered.value);
    return hovered.follow(draw);
  }, [scene, hovered]);
  useEffect(() => reveal(box.current, layout.x[chosen] ?? 0), [chosen, layout]);

  const under = (event: MouseEvent) => {
    const area = (top.current as HTMLCanvasElement).getBoundingClientRect();
    return nodeAt(props, layout, visibleNodes, event.clientX - area.left, event.clientY - area.top);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const key = event.key;
    if (key === "ArrowLeft" || key === "ArrowRight" || key === "ArrowUp" || key === "ArrowDown") choose(neighbour(layout, visibleNodes, chosen, key));
    else if (key === "Enter" || key === "p") pin(chosen);
    else if (key === " ") play?.(chosen);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="graph-scroll" ref={box}>
      <div class="graph-plane" style={{ width: `${layout.width}px` }}>
        <div
          class="graph-canvas"
          tabIndex={0}
          role="application"
          aria-roledescription="graph"
          aria-label="Graph. Arrow keys go to the next node, Enter pins it, Space plays its sound."
          aria-describedby="graph-said"
          style={{ height: `${layout.height}px` }}
          onPointerMove={(event) => hovered.set(under(event))}
          onPointerLeave={() => hovered.set(-1)}
          onClick={(event) => {
            const node = under(event);
            if (node < 0) return;
            if (event.shiftKey) pin(node);
            else choose(node);
            if (graph.node(node).kind === "frame") play?.(node);
          }}
          onKeyDown={onKeyDown}
          data-testid="graph-canvas"
        >
          <canvas ref={base} aria-hidden="true" />
          <canvas ref={middle} aria-hidden="true" />
          <canvas ref={top} aria-hidden="true" data-picture="no" />
          <Outputs {...props} layout={layout} />
          <Tokens {...props} layout={layout} />
          <Tip {...props} layout={layout} />
        </div>
        {layout.axis && <SoundRows {...props} layout={layout} axis={layout.axis} />}
      </div>
      <output id="graph-said" class="unseen">
        {graph.node(chosen).label}, {placeOf(graph, chosen)}
      </output>
    </div>
  );
}

/** A bar of sound is met anywhere on its length; everything else by its centre. */
function nodeAt({ graph }: Props, layout: Layout, shown: Uint8Array, x: number, y: number): number {
  const near = nearest(layout, shown, x, y);
  const band = layout.bands.find((one) => one.stack === "in");
  if (!band || Math.abs(y - band.y) > band.height / 2 || (near >= 0 && graph.node(near).kind !== "frame")) return near;
  for (let i = 0; i < graph.count; i++) {
    const { kind, segment } = graph.node(i);
    const column = segment === undefined ? undefined : layout.segments[segment];
    if (shown[i] && kind === "frame" && column && Math.abs(column.x - x) <= column.width / 2) return i;
  }
  return near;
}

/** What is chosen is seen, even where the sliders hide it. */
function withChosen(shown: Uint8Array, chosen: number): Uint8Array {
  if (shown[chosen]) return shown;
  const more = shown.slice();
  more[chosen] = 1;
  return more;
}

function Outputs({ graph, layout }: Props & { layout: Layout }) {
  return (
    <>
      {graph.data.targets.map((target, i) => (
        <span key={i} class="graph-output" style={{ left: `${layout.x[target.node]}px`, top: `${(layout.y[target.node] ?? 0) - 17}px` }}>
          <bdi>{shortened(visible(target.text), 24)}</bdi>
        </span>
      ))}
    </>
  );
}

/** Names of tokens in their band, as many as have room. */
function Tokens({ graph, layout }: Props & { layout: Layout }) {
  const band = layout.bands.find(({ name }) => name === "tokens");
  if (!band) return null;
  let end = 0;
  return (
    <div aria-hidden="true">
      {graph.data.tokens.map((token, i) => {
        const column = layout.tokens[i]!;
        const text = shortened(token.text.trim() || visible(token.text), 14);
        const left = column.x - Math.min(40, 3.2 * text.length);
        if (token.prompt || left < end) return null;
        end = column.x + Math.min(40, 3.2 * text.length) + 4;
        return (
          <span key={i} class="graph-token" style={{ left: `${column.x}px`, top: `${band.y + band.height / 2}px` }}>
            <bdi>{text}</bdi>
          </span>
        );
      })}
    </div>
  );
}

/** What is under the pointer, beside it. */
function Tip({ graph, layout, hovered, chosen, view }: Props & { layout: Layout }) {
  const [node, setNode] = useState(-1);
  useEffect(() => hovered.follow(setNode), [hovered]);
  if (node < 0) return null;
  const right = (layout.x[node] ?? 0) > layout.width - 280;
  const link = graph.into[chosen]?.find((edge) => graph.source[edge] === node) ?? graph.from[chosen]?.find((edge) => graph.target[edge] === node);
  return (
    <div class={right ? "graph-tip right" : "graph-tip"} style={{ left: `${layout.x[node]}px`, top: `${layout.y[node]}px` }} data-testid="graph-tip" data-picture="no">
      <strong>
        <NodeName graph={graph} node={node} annotations={view.annotations} />
      </strong>
      <span>{placeOf(graph, node)}</span>
      <span>influence {(100 * graph.node(node).influence).toPrecision(2)} %</span>
      {link !== undefined && (
        <span>
          {percent(graph.share[link]!)} of the input of {graph.target[link] === chosen ? "the chosen node" : "this node, from the chosen one"}
        </span>
      )}
    </div>
  );
}

function useRoom(box: { current: HTMLDivElement | null }): number {
  const [room, setRoom] = useState(880);
  useLayoutEffect(() => {
    const element = box.current as HTMLDivElement;
    const measure = () => setRoom(Math.max(element.clientWidth, 240));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return room;
}

function reveal(box: HTMLDivElement | null, x: number): void {
  if (!box || box.scrollWidth <= box.clientWidth) return;
  if (x < box.scrollLeft + 40 || x > box.scrollLeft + box.clientWidth - 40) box.scrollLeft = x - box.clientWidth / 2;
}
