/** The audio bench: waveform, mel, words and attention over one time axis, with playback. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ExplainDoc, WordInfo } from "../contract.ts";
import { drawAttention, drawMel, drawWaveform, type Surface } from "../draw/rows.ts";
import { resourceUrl } from "../model/resources.ts";
import { extent, unpack } from "../model/arrays.ts";
import { probability, seconds } from "../model/numbers.ts";
import { TimeAxis } from "../model/time.ts";
import { Panel, type PanelProps, Quoted, useDark } from "./common.tsx";
import { tintStyle } from "./grid.tsx";
import { type Player, type Span, usePlayer } from "./player.ts";

const PIXELS_PER_SECOND = 84; // at least: words stay readable and long windows scroll

export function AudioBench(props: PanelProps) {
  const { doc, token, select } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const cursor = useRef<HTMLDivElement>(null);
  const clock = useRef<HTMLSpanElement>(null);
  const axis = useAxis(scroller, doc.audio.duration);
  const url = useMemo(() => resourceUrl(doc, "audio"), [doc]);
  const span = spanOf(doc, token);
  const player = usePlayer((time) => {
    if (cursor.current) cursor.current.style.transform = `translateX(${axis.x(time)}px)`;
    if (clock.current) clock.current.textContent = time.toFixed(2);
    const audio = player.element.current;
    if (audio && !audio.paused) reveal(scroller.current, axis.x(time), axis.x(time));
  });
  const choose = (word: TimedWord) => {
    select(word.first_token);
    player.play(word);
  };
  useSpaceKey(player);
  useEffect(() => {
    if (span) reveal(scroller.current, axis.x(span.start), axis.x(span.end));
  }, [token, axis]);
  useEffect(() => {
    if (cursor.current) {
      cursor.current.style.transform = `translateX(${axis.x(player.element.current?.currentTime ?? 0)}px)`;
    }
  }, [axis]);

  return (
    <Panel name="audio" title="Sound" lead={<Lead doc={doc} />}>
      <audio ref={player.element} src={url} preload="auto" />
      <div class="controls">
        <button type="button" disabled={!url} aria-pressed={player.playing} onClick={player.toggle}>
          {player.playing ? "Pause" : "Play"}
        </button>
        <button type="button" disabled={!url || !span} onClick={() => span && player.play(span)}>
          Play the token
        </button>
        <span class="clock">
          <span ref={clock} data-testid="clock">
            0.00
          </span>{" "}
          / {seconds(doc.audio.duration)}
        </span>
      </div>
      <div class="bench" ref={scroller} tabIndex={0} role="group" aria-label="Time axis; scrolls when it is long">
        <div class="rows" style={{ width: `${axis.width}px` }} onClick={(event) => seekTo(event, axis, player)}>
          {span && (
            <div
              class="span"
              data-testid="span"
              style={{ left: `${axis.x(span.start)}px`, width: `${axis.x(span.end) - axis.x(span.start)}px` }}
            />
          )}
          <Pictures doc={doc} axis={axis} />
          <Words doc={doc} axis={axis} token={token} choose={choose} />
          <AttentionRow doc={doc} axis={axis} token={token} />
          <Ticks axis={axis} />
          <div class="cursor" ref={cursor} />
        </div>
      </div>
      <AttentionNote doc={doc} token={token} />
    </Panel>
  );
}

function Lead({ doc }: { doc: ExplainDoc }) {
  const { audio } = doc;
  const padding = audio.window_seconds - audio.duration;
  return (
    <>
      Waveform and the log-mel the model was given; its colours are scaled for this clip and are not loudness.
      {audio.recording_duration - audio.duration > 0.01 && (
        <>
          {" "}
          This is {audio.start.toFixed(2)}–{seconds(audio.start + audio.duration)} of a recording of{" "}
          {seconds(audio.recording_duration)}.
        </>
      )}
      {padding > 0.01 && <> After it the model heard {seconds(padding)} of padding, not shown.</>}
    </>
  );
}

function Pictures({ doc, axis }: { doc: ExplainDoc; axis: TimeAxis }) {
  const peaks = useMemo(() => unpack(doc.waveform), [doc]);
  const mel = useMemo(() => unpack(doc.mel), [doc]);
  const hop = doc.audio.mel_hop_seconds;
  const bands = doc.mel.shape[0] ?? 0;
  return (
    <>
      <Row name="waveform" height={72} axis={axis} draw={(surface) => drawWaveform(surface, peaks)} keys={[doc]} />
      <Row
        name={`log-mel, ${bands} bands`}
        height={128}
        axis={axis}
        draw={(surface) => drawMel(surface, mel, bands, hop)}
        keys={[doc]}
      />
    </>
  );
}

interface RowProps {
  name: string;
  height: number;
  axis: TimeAxis;
  draw: (surface: Surface) => void;
  keys: unknown[];
}

function Row({ name, height, axis, draw, keys }: RowProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  useLayoutEffect(() => {
    if (canvas.current) draw({ canvas: canvas.current, axis, height, dark });
  }, [axis, dark, height, ...keys]);
  return (
    <div class="row">
      <span class="row-name">{name}</span>
      <canvas ref={canvas} role="img" aria-label={`${name} over time`} />
    </div>
  );
}

interface WordsProps {
  doc: ExplainDoc;
  axis: TimeAxis;
  token: number;
  choose: (word: TimedWord) => void;
}

type TimedWord = WordInfo & Span;

function Words({ doc, axis, token, choose }: WordsProps) {
  const words = doc.transcript.words.filter(
    (word): word is TimedWord => word.start !== undefined && word.end !== undefined,
  );
  return (
    <div class="words" role="group" aria-label="Words; choosing one plays it">
      {words.map((word, i) => {
        const chosen = word.first_token <= token && token <= word.last_token;
        const left = axis.x(word.start);
        const room = axis.x(words[i + 2]?.start ?? axis.t1) - left; // every other word hangs lower
        return (
          <button
            key={i}
            type="button"
            class={chosen ? "word current" : "word"}
            aria-pressed={chosen}
            style={{
              left: `${left}px`,
              minWidth: `${Math.min(axis.x(word.end) - left, room)}px`,
              maxWidth: `${Math.max(room - 2, 4)}px`,
              ...tintStyle(1 - word.p),
            }}
            title={`${word.text.trim()}  ${word.start.toFixed(2)}–${word.end.toFixed(2)} s, p = ${probability(word.p)}`}
            onClick={() => choose(word)}
          >
            <bdi>{word.text.trim()}</bdi>
          </button>
        );
      })}
    </div>
  );
}

function AttentionRow({ doc, axis, token }: { doc: ExplainDoc; axis: TimeAxis; token: number }) {
  const matrix = useMemo(() => unpack(doc.alignment.matrix), [doc]);
  if (token < 0) return null;
  const positions = doc.alignment.matrix.shape[1] ?? 0;
  const row = matrix.subarray(token * positions, (token + 1) * positions);
  return (
    <Row
      name={`attention of token ${token}, peak ${extent(row)[1].toFixed(2)}`}
      height={56}
      axis={axis}
      draw={(surface) => drawAttention(surface, row, doc.audio.frame_seconds)}
      keys={[doc, token]}
    />
  );
}

function AttentionNote({ doc, token }: { doc: ExplainDoc; token: number }) {
  const one = doc.transcript.tokens[token];
  if (!one) return null;
  const heads = doc.alignment.heads.map(([layer, head]) => `${layer}.${head}`).join(", ");
  return (
    <p class="note">
      Cross-attention onto the sound while <Quoted text={one.text} /> was written, mean of the alignment heads (layer.head) {heads}.
      Word and token times come from it. Attention is not proof of cause.
    </p>
  );
}

function Ticks({ axis }: { axis: TimeAxis }) {
  return (
    <div class="ticks" aria-hidden="true">
      {axis.ticks(70).map((time) => (
        <span key={time} style={{ left: `${axis.x(time)}px` }}>
          {Number(time.toFixed(1))} s
        </span>
      ))}
    </div>
  );
}

function useAxis(scroller: { current: HTMLDivElement | null }, duration: number): TimeAxis {
  const [room, setRoom] = useState(960);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return undefined;
    const measure = () => setRoom(box.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  return useMemo(() => {
    const length = Math.max(duration, 0.01);
    return new TimeAxis(0, length, Math.max(room, Math.round(length * PIXELS_PER_SECOND), 1));
  }, [room, duration]);
}

function spanOf(doc: ExplainDoc, token: number): Span | undefined {
  const one = doc.transcript.tokens[token];
  return one?.start !== undefined && one.end !== undefined ? { start: one.start, end: one.end } : undefined;
}

/** Scroll as little as shows both ends of a span. */
function reveal(box: HTMLDivElement | null, left: number, right: number): void {
  if (!box || box.scrollWidth <= box.clientWidth) return;
  const outside = left < box.scrollLeft || right > box.scrollLeft + box.clientWidth;
  if (outside) box.scrollLeft = left - box.clientWidth * 0.15;
}

function seekTo(event: MouseEvent, axis: TimeAxis, player: Player): void {
  if ((event.target as HTMLElement).closest("button")) return;
  const rows = event.currentTarget as HTMLElement;
  player.seek(axis.t(event.clientX - rows.getBoundingClientRect().left));
}

/** Space plays and pauses, unless what has the focus uses it itself. */
function useSpaceKey(player: Player): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const taken = (event.target as HTMLElement).closest("button:not(.token), summary, [role=grid], a, input");
      if (event.key !== " " || taken) return;
      event.preventDefault();
      player.toggle();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [player.toggle]);
}
