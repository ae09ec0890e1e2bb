/** What keys do while the time axis has the focus, and the space bar everywhere. */

import { useEffect } from "preact/hooks";
import { spanBetween } from "../../model/time.ts";
import type { Player } from "../player.ts";
import { loop, type Selecting } from "./selection.ts";
import type { View } from "./view.ts";

const STEP = 0.02; // seconds, a frame of the encoder; without shift five of them

export function onBenchKey(event: KeyboardEvent, view: View, player: Player, selecting: Selecting, end: number): void {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target !== event.currentTarget) return;
  const now = player.now();
  const go = (time: number) => {
    const to = Math.min(Math.max(time, 0), end);
    player.seek(to);
    view.reveal({ start: to, end: to });
    return to;
  };
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const actions: Record<string, () => void> = {
    "+": () => view.zoom(2, now),
    "=": () => view.zoom(2, now),
    "-": () => view.zoom(0.5, now),
    "0": view.fit,
    Home: () => void go(0),
    End: () => void go(end),
    "[": () => selecting.select(spanBetween(now, selecting.selection?.end ?? end, end)),
    "]": () => selecting.select(spanBetween(selecting.selection?.start ?? 0, now, end)),
    l: () => loop(selecting, player),
    Escape: () => selecting.select(undefined),
  };
  if (by && event.shiftKey) {
    const from = selecting.selection ?? { start: now, end: now };
    const fixed = Math.abs(from.end - now) < Math.abs(from.start - now) ? from.start : from.end;
    const to = go(now + by * STEP);
    selecting.select(spanBetween(from.start === from.end ? now : fixed, to, end));
  } else if (by) {
    go(now + 5 * by * STEP);
  } else {
    const action = actions[event.key];
    if (!action) return;
    action();
  }
  event.preventDefault();
  event.stopPropagation();
}

/** Space plays and pauses, unless what has the focus uses it itself. */
export function useSpaceKey(toggle: () => void): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const uses = "button:not(.token), summary, select, textarea, [role=grid], [role=slider], a, input";
      if (event.key !== " " || (event.target as HTMLElement).closest(uses)) return;
      event.preventDefault();
      toggle();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [toggle]);
}
