/** How far the time axis is zoomed, and which part of it is in view. */

import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Span, TimeAxis } from "../../model/time.ts";

const READABLE = 84; // pixels a second at first: words stay readable and long windows scroll
const MOST = 1200; // pixels a second: a frame of the encoder is 24 wide

export interface View {
  scroller: { current: HTMLDivElement | null };
  axis: TimeAxis; // all of it
  seen: TimeAxis; // what is in view
  zoom: (factor: number, around?: number) => void;
  fit: () => void;
  /** Zoom and scroll until a span fills most of what is in view. */
  show: (span: Span) => void;
  /** Scroll as little as shows both ends of a span. */
  reveal: (span: Span) => void;
  follow: () => void; // the box was scrolled
}

/** `end` is where the axis ends, in seconds. */
export function useView(end: number): View {
  const scroller = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(960);
  const [scale, setScale] = useState(READABLE);
  const [left, setLeft] = useState(0);
  const wanted = useRef<number | undefined>(undefined); // scroll position to take once the width is drawn
  const width = Math.max(room, Math.round(end * scale), 1);
  const axis = useMemo(() => new TimeAxis(0, end, width), [end, width]);
  const seen = useMemo(() => axis.part(Math.min(left, width - Math.min(room, width)), room), [axis, left, room]);

  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return undefined;
    const measure = () => setRoom(Math.max(box.clientWidth, 1));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (wanted.current === undefined || !scroller.current) return;
    scroller.current.scrollLeft = wanted.current;
    wanted.current = undefined;
    setLeft(scroller.current.scrollLeft);
  }, [axis]);

  const rescale = useCallback(
    (next: number, around: number, at: number) => {
      const bounded = Math.min(Math.max(next, room / end), MOST);
      const wide = Math.max(room, Math.round(end * bounded));
      wanted.current = Math.max(0, (around / end) * wide - at);
      setScale(bounded);
      if (wide === width && scroller.current) scroller.current.scrollLeft = wanted.current;
    },
    [room, end, width],
  );
  const zoom = useCallback(
    (factor: number, around?: number) => {
      const anchor = around ?? (seen.t0 + seen.t1) / 2;
      rescale((width / end) * factor, anchor, seen.x(anchor));
    },
    [rescale, seen, width, end],
  );
  const fit = useCallback(() => rescale(room / end, 0, 0), [rescale, room, end]);
  const show = useCallback(
    (span: Span) => rescale((room * 0.6) / Math.max(span.end - span.start, 0.05), (span.start + span.end) / 2, room / 2),
    [rescale, room],
  );
  const reveal = useCallback(
    ({ start, end: last }: Span) => {
      const box = scroller.current;
      if (!box || box.scrollWidth <= box.clientWidth) return;
      const outside = axis.x(start) < box.scrollLeft || axis.x(last) > box.scrollLeft + box.clientWidth;
      if (outside) box.scrollLeft = axis.x(start) - box.clientWidth * 0.15;
    },
    [axis],
  );
  const follow = useCallback(() => setLeft(scroller.current?.scrollLeft ?? 0), []);
  useWheel(scroller, zoom, seen);
  return { scroller, axis, seen, zoom, fit, show, reveal, follow };
}

/** The wheel with ctrl (and a pinch, which browsers report as that) zooms around the pointer. */
function useWheel(scroller: View["scroller"], zoom: View["zoom"], seen: TimeAxis): void {
  useEffect(() => {
    const box = scroller.current;
    if (!box) return undefined;
    const onWheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), seen.t(event.clientX - box.getBoundingClientRect().left));
    };
    box.addEventListener("wheel", onWheel, { passive: false });
    return () => box.removeEventListener("wheel", onWheel);
  }, [zoom, seen]);
}
