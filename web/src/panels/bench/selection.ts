/** A span that a person chose: by dragging over the rows, or with the keys `[` and `]` at the cursor. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Span, spanBetween } from "../../model/time.ts";
import type { Player } from "../player.ts";
import type { View } from "./view.ts";

const DRAGGED = 4; // pixels from which on it is no click

export interface Selecting {
  selection: Span | undefined;
  select: (span: Span | undefined) => void;
  looping: boolean;
  setLooping: (on: boolean) => void;
  onPointerDown: (event: PointerEvent) => void;
  onPointerMove: (event: PointerEvent) => void;
  onPointerUp: (event: PointerEvent) => void;
}

/** Begin to repeat the chosen span, which is heard at once; or let it end. */
export function loop(selecting: Selecting, player: Player): void {
  selecting.setLooping(!selecting.looping);
  if (!selecting.looping && selecting.selection) player.play(selecting.selection);
}

export function useSelecting(view: View, player: Player, end: number): Selecting {
  const [selection, select] = useState<Span | undefined>(undefined);
  const [looping, setLooping] = useState(false);
  const from = useRef<{ x: number; time: number; dragged: boolean } | undefined>(undefined);
  useEffect(() => player.loop(looping), [looping]);
  const timeAt = useCallback((event: PointerEvent) => {
    const box = view.scroller.current as HTMLElement;
    return view.axis.t(event.clientX - box.getBoundingClientRect().left - box.clientLeft + box.scrollLeft);
  }, [view.axis]);
  return {
    selection,
    select,
    looping,
    setLooping,
    onPointerDown(event) {
      const free = event.button === 0 && !(event.target as HTMLElement).closest("button");
      if (free) from.current = { x: event.clientX, time: timeAt(event), dragged: false };
    },
    onPointerMove(event) {
      const begun = from.current;
      if (!begun || event.pointerType === "touch") return; // a finger scrolls
      if (!begun.dragged && Math.abs(event.clientX - begun.x) < DRAGGED) return;
      if (!begun.dragged) (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
      begun.dragged = true;
      select(spanBetween(begun.time, timeAt(event), end));
    },
    onPointerUp(event) {
      const begun = from.current;
      from.current = undefined;
      if (begun && !begun.dragged) player.seek(Math.min(timeAt(event), end));
    },
  };
}
