/** Pinned nodes and supernodes as boxes, and what they supply to each other directly. */

import { useMemo, useRef, useState } from "preact/hooks";
import type { Annotations } from "../../contract.ts";
import { called } from "../../model/graph.ts";
import { type Box, boxesOf, bundles, grouped, suggestedGroups } from "../../model/graph-groups.ts";
import { type Place, placesOf } from "../../model/graph-boxes.ts";
import { shortened, visible } from "../../model/numbers.ts";
import { type GraphProps, percent, shortPlace } from "./shared.tsx";

const HEIGHT = 84; // pixels a level, at least
const NEAR = 46; // pixels from centre to centre within which a dropped box joins another
const DRAWN = 0.002; // shares below this are not drawn

interface Props extends GraphProps {
  preview: (nodes: number[]) => void;
}

export function Subgraph(props: Props) {
  const { graph, view, annotate, shown } = props;
  const { pins, supernodes } = view.annotations;
  const boxes = useMemo(() => boxesOf(graph, pins, supernodes), [graph, pins, supernodes]);
  const [ticked, setTicked] = useState<string[]>([]);
  const selected = boxes.filter((box) => ticked.includes(box.key));
  const group = (parts: Box[]) => {
    annotate((now) => joined(props, now, parts));
    setTicked([]);
  };
  return (
    <section class="subgraph" aria-label="Subgraph" data-testid="subgraph">
      <h3>Your subgraph</h3>
      {boxes.length === 0 ? (
        <p class="note">Pin nodes (button, Enter, or Shift and click) to collect them here. Drag one box onto another to take both for one thing.</p>
      ) : (
        <p class="note">
          {boxes.length} {boxes.length === 1 ? "box" : "boxes"}. Lines are what a box supplied to another directly, as shares of everything that it was given; paths over
          other nodes do not count. Drag to move; drop one on another, or tick several, to group.
        </p>
      )}
      <p class="actions">
        {selected.length > 1 && (
          <button type="button" onClick={() => group(selected)}>
            Group {selected.length} boxes
          </button>
        )}
        <Suggestions {...props} boxes={boxes} shownNodes={shown.node} />
        {boxes.length > 0 && (
          <button type="button" onClick={() => annotate((now) => ({ ...now, pins: [], supernodes: [], places: {} }))}>
            Clear
          </button>
        )}
      </p>
      {boxes.length > 0 && <Boxes {...props} boxes={boxes} ticked={ticked} tick={setTicked} group={group} />}
    </section>
  );
}

function joined({ graph }: GraphProps, now: Annotations, parts: Box[]): Annotations {
  const nodes = parts.flatMap((box) => box.nodes);
  const named = parts.map((box) => (box.supernode >= 0 ? now.supernodes[box.supernode]?.label : undefined)).find((label) => label);
  const first = nodes.reduce((a, b) => (graph.node(a).influence >= graph.node(b).influence ? a : b));
  const ids = nodes.map((i) => graph.node(i).id);
  return { ...now, pins: now.pins.filter((id) => !ids.includes(id)), supernodes: grouped(now.supernodes, ids, named ?? called(graph.node(first), now)) };
}

interface BoxesProps extends Props {
  boxes: Box[];
  ticked: string[];
  tick: (keys: string[]) => void;
  group: (parts: Box[]) => void;
}

function Boxes(props: BoxesProps) {
  const { graph, boxes, view, annotate, group } = props;
  const plane = useRef<HTMLDivElement>(null);
  const [moved, setMoved] = useState<{ number: number; at: Place } | null>(null);
  const settled = useMemo(() => placesOf(graph, boxes, view.annotations), [graph, boxes, view.annotations]);
  const places = settled.map((place, i) => (moved?.number === i ? moved.at : place));
  const links = useMemo(() => bundles(graph, boxes).filter(({ share }) => Math.abs(share) >= DRAWN), [graph, boxes]);
  const height = HEIGHT * Math.max(2, new Set(settled.map(({ y }) => y.toFixed(2))).size);
  const drop = (number: number, at: Place) => {
    setMoved(null);
    const area = plane.current!.getBoundingClientRect();
    const onto = settled.findIndex((other, i) => i !== number && Math.hypot((other.x - at.x) * area.width, (other.y - at.y) * area.height) < NEAR);
    if (onto >= 0) group([boxes[onto]!, boxes[number]!]);
    else annotate((now) => ({ ...now, places: { ...now.places, [boxes[number]!.key]: [at.x, at.y] } }));
  };
  return (
    <div class="boxes" ref={plane} style={{ height: `${height}px` }}>
      <svg aria-hidden="true">
        {links.map(({ source, target, share }, i) => (
          <line
            key={i}
            class={share < 0 ? "falls" : undefined}
            x1={`${100 * places[source]!.x}%`}
            y1={`${100 * places[source]!.y}%`}
            x2={`${100 * places[target]!.x}%`}
            y2={`${100 * places[target]!.y}%`}
            stroke-width={Math.min(9, 1 + 30 * Math.abs(share))}
          />
        ))}
      </svg>
      {links
        .filter(({ share }) => Math.abs(share) >= 0.01)
        .map(({ source, target, share }, i) => (
          <span key={i} class="link-share" style={{ left: `${50 * (places[source]!.x + places[target]!.x)}%`, top: `${50 * (places[source]!.y + places[target]!.y)}%` }}>
            {percent(share)}
          </span>
        ))}
      {boxes.map((box, number) => (
        <BoxView key={box.key} {...props} box={box} place={places[number]!} plane={plane} move={(at) => setMoved({ number, at })} drop={(at) => drop(number, at)} cancel={() => setMoved(null)} />
      ))}
    </div>
  );
}

interface BoxProps extends Omit<BoxesProps, "place"> {
  box: Box;
  place: Place;
  plane: { current: HTMLDivElement | null };
  move: (at: Place) => void;
  drop: (at: Place) => void;
  cancel: () => void;
}

function BoxView(props: BoxProps) {
  const { graph, view, box, place, choose, chosen, hovered, ticked, tick, annotate, pin, move, drop, cancel, plane } = props;
  const begun = useRef<{ x: number; y: number; moved: boolean } | null>(null);
  const supernode = view.annotations.supernodes[box.supernode];
  const first = box.nodes[0] as number;
  const name = supernode ? supernode.label : called(graph.node(first), view.annotations);
  const at = (event: PointerEvent): Place => {
    const area = plane.current!.getBoundingClientRect();
    const inside = (value: number) => Math.min(Math.max(value, 0.04), 0.96);
    return { x: inside((event.clientX - area.left) / area.width), y: inside((event.clientY - area.top) / area.height) };
  };
  const rename = (label: string) =>
    annotate((now) => ({ ...now, supernodes: now.supernodes.map((one, i) => (i === box.supernode && label.trim() ? { ...one, label: label.trim().slice(0, 200) } : one)) }));
  return (
    <div
      class={["box", supernode && "supernode", box.nodes.includes(chosen) && "current"].filter(Boolean).join(" ")}
      style={{ left: `${100 * place.x}%`, top: `${100 * place.y}%` }}
      data-box={box.key}
      onPointerEnter={() => hovered.set(first)}
      onPointerLeave={() => hovered.set(-1)}
      onPointerDown={(event) => {
        if ((event.target as HTMLElement).closest("input, .lesser-button")) return;
        begun.current = { x: event.clientX, y: event.clientY, moved: false };
        event.currentTarget.setPointerCapture(event.pointerId);
      }}
      onPointerMove={(event) => {
        const start = begun.current;
        if (!start) return;
        if (Math.hypot(event.clientX - start.x, event.clientY - start.y) > 5) start.moved = true;
        if (start.moved) move(at(event));
      }}
      onPointerUp={(event) => {
        const start = begun.current;
        begun.current = null;
        if (start?.moved) drop(at(event));
        else if (start) choose(first);
      }}
      onPointerCancel={() => {
        begun.current = null;
        cancel();
      }}
    >
      <input type="checkbox" aria-label={`Tick ${shortened(name, 40)} for a group`} checked={ticked.includes(box.key)} onChange={() => tick(ticked.includes(box.key) ? ticked.filter((key) => key !== box.key) : [...ticked, box.key])} />
      {supernode ? (
        <input class="box-name" aria-label="Name of the group" value={name} maxLength={200} onChange={(event) => rename(event.currentTarget.value)} />
      ) : (
        <button type="button" class="box-name" onClick={(event) => event.detail === 0 && choose(first)}>
          <bdi>{shortened(visible(name), 28)}</bdi>
        </button>
      )}
      <small>{supernode ? `${box.nodes.length} nodes` : shortPlace(graph.data, graph, first)}</small>
      <button
        type="button"
        class="lesser-button"
        aria-label={supernode ? `Ungroup ${shortened(name, 40)}` : `Unpin ${shortened(name, 40)}`}
        title={supernode ? "Ungroup: its nodes stay pinned" : "Unpin"}
        onClick={() => (supernode ? annotate((now) => ungrouped(now, box.supernode)) : pin(first))}
      >
        ×
      </button>
    </div>
  );
}

function ungrouped(now: Annotations, number: number): Annotations {
  const gone = now.supernodes[number]?.nodes ?? [];
  return { ...now, pins: [...new Set([...now.pins, ...gone])], supernodes: now.supernodes.filter((_, i) => i !== number) };
}

/** Groups of nodes with alike inputs and outputs: looked at one by one, and taken or not. */
function Suggestions({ graph, view, annotate, preview, boxes, shownNodes }: Props & { boxes: Box[]; shownNodes: Uint8Array }) {
  const [groups, setGroups] = useState<number[][] | null>(null);
  const suggest = () => {
    const pinned = boxes.filter((box) => box.supernode < 0).flatMap((box) => box.nodes);
    const features = [...shownNodes.keys()].filter((i) => shownNodes[i] && graph.node(i).kind === "feature");
    features.sort((a, b) => graph.node(b).influence - graph.node(a).influence);
    setGroups(suggestedGroups(graph, pinned.length > 2 ? pinned : features.slice(0, 40)));
  };
  const accept = (group: number[]) => {
    annotate((now) => joined({ graph } as GraphProps, now, group.map((i) => ({ key: graph.node(i).id, nodes: [i], supernode: -1 }))));
    setGroups((groups ?? []).filter((one) => one !== group));
    preview([]);
  };
  return (
    <>
      <button type="button" onClick={suggest}>
        Suggest groups
      </button>
      {groups && (
        <div class="suggestions" data-testid="suggestions">
          <p class="note">
            {groups.length ? "Nodes with alike inputs and outputs, signs included, at most two layers apart:" : "No nodes here have inputs and outputs alike enough."}
          </p>
          <ul>
            {groups.map((group, i) => (
              <li key={i} onPointerEnter={() => preview(group)} onPointerLeave={() => preview([])} onFocusIn={() => preview(group)} onFocusOut={() => preview([])}>
                <button type="button" onClick={() => accept(group)}>
                  Group {group.length}
                </button>{" "}
                <bdi>{shortened(group.map((node) => called(graph.node(node), view.annotations)).join(", "), 120)}</bdi>
              </li>
            ))}
          </ul>
        </div>
      )}
    </>
  );
}
