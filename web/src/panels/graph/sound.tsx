/** The sound under the graph, on the same axis: segments, waveform and mel. */

import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { Sound } from "../../contract.ts";
import { drawMel, drawWaveform, type Surface } from "../../draw/rows.ts";
import { unpack } from "../../model/arrays.ts";
import type { Layout } from "../../model/graph-layout.ts";
import { change, shortened } from "../../model/numbers.ts";
import { TimeAxis } from "../../model/time.ts";
import { useDark } from "../common.tsx";
import type { GraphProps } from "./shared.tsx";

export interface SoundProps {
  sound: Sound | undefined;
  /** Where the cursor of what is played is put. */
  cursor: { current: ((seconds: number) => void) | null };
}

type Props = GraphProps & SoundProps & { layout: Layout; axis: TimeAxis };

export function SoundRows(props: Props) {
  const { sound, layout, axis, cursor, graph, chosen } = props;
  const line = useRef<HTMLDivElement>(null);
  cursor.current = (seconds) => {
    if (line.current) line.current.style.transform = `translateX(${axis.x(seconds)}px)`;
  };
  const node = graph.node(chosen);
  const span = node.start !== undefined && node.end !== undefined && node.end <= axis.t1 + 0.05 ? node : undefined;
  return (
    <div class="graph-sound" style={{ marginLeft: `${layout.left}px`, width: `${axis.width}px` }}>
      <Segments {...props} />
      {sound && <Pictures sound={sound} axis={axis} />}
      {span && <div class="span" style={{ left: `${axis.x(span.start!)}px`, width: `${axis.x(span.end!) - axis.x(span.start!)}px` }} />}
      <div class="ticks" aria-hidden="true">
        {axis.ticks(70).map((time) => (
          <span key={time} style={{ left: `${axis.x(time)}px` }}>
            {Number(time.toFixed(1))} s
          </span>
        ))}
      </div>
      {sound && <div class="cursor" ref={line} data-picture="no" />}
    </div>
  );
}

function Pictures({ sound, axis }: { sound: Sound; axis: TimeAxis }) {
  const peaks = useMemo(() => unpack(sound.waveform), [sound]);
  const mel = useMemo(() => (sound.mel ? unpack(sound.mel) : undefined), [sound]);
  const inner = useMemo(() => drawnAxis(sound, axis), [sound, axis]);
  const bands = sound.mel?.shape[0] ?? 0;
  return (
    <>
      <Row name="waveform" height={34} axis={inner} draw={(surface) => drawWaveform(surface, peaks)} />
      {mel && <Row name="log-mel" height={72} axis={inner} draw={(surface) => drawMel(surface, mel, bands, sound.audio.mel_hop_seconds)} />}
    </>
  );
}

/** The part of the axis that the sound takes: segments are whole frames, so that the last may end after it. */
function drawnAxis(sound: Sound, axis: TimeAxis): TimeAxis {
  const end = Math.min(sound.audio.duration, axis.t1);
  return new TimeAxis(0, Math.max(end, 0.01), Math.max(1, axis.x(end)));
}

function Row({ name, height, axis, draw }: { name: string; height: number; axis: TimeAxis; draw: (surface: Surface) => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  useLayoutEffect(() => {
    if (canvas.current) draw({ canvas: canvas.current, axis, height, dark });
  }, [axis, dark, height]);
  return (
    <div class="row">
      <canvas ref={canvas} role="img" aria-label={`${name} over time`} />
    </div>
  );
}

/** A button for each segment: how much it supplied to the word along all paths; choosing one plays it. */
function Segments({ graph, axis, choose, play, chosen, hovered, target: node }: Props) {
  const { segments, targets } = graph.data;
  const target = targets.find((one) => one.node === node);
  const account = target?.account;
  const reach = Math.max(0.01, ...(account?.sound ?? []).map(Math.abs));
  const nodeOf = useMemo(() => new Map(graph.data.nodes.flatMap((node, i) => (node.kind === "frame" ? [[node.segment, i] as const] : []))), [graph]);
  return (
    <div class="graph-segments" role="group" aria-label="Stretches of sound; choosing one plays it">
      {segments.map((segment, i) => {
        const node = nodeOf.get(i);
        if (segment.kind === "padding" || node === undefined) return null;
        const part = account?.sound[i] ?? 0;
        const [left, right] = [axis.x(segment.start), axis.x(segment.end)];
        const told = `${segment.start.toFixed(2)}–${segment.end.toFixed(2)} s, ${change(part)} logits along all paths`;
        return (
          <button
            key={i}
            type="button"
            class={part < 0 ? "segment falls" : "segment"}
            aria-pressed={node === chosen}
            style={{ left: `${left}px`, width: `${Math.max(right - left - 1, 2)}px`, "--amount": (Math.abs(part) / reach).toFixed(3) }}
            aria-label={`${segment.label || segment.kind}, ${told}`}
            title={`${shortened(segment.label || segment.kind, 80)}  ${told}`}
            onClick={() => {
              choose(node);
              play?.(node);
            }}
            onPointerEnter={() => hovered.set(node)}
            onPointerLeave={() => hovered.set(-1)}
          >
            {segment.kind === "word" && right - left > 16 && <bdi>{shortened(segment.label, 30)}</bdi>}
          </button>
        );
      })}
    </div>
  );
}
