/** Keeps what a person writes onto a graph, where the host can: a moment after the last change, and before the page is left. */

import type { JSX } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Annotations } from "../contract.ts";
import { useHost } from "../host.ts";

const SOON = 400; // ms

/** What to call with the annotations of the graph at a place of the document, and what to show where they cannot be kept. */
export function useKeeping(place: string): [((annotations: Annotations) => void) | undefined, JSX.Element | null] {
  const host = useHost();
  const [trouble, setTrouble] = useState("");
  const waiting = useRef<Annotations | undefined>(undefined);
  const timer = useRef(0);
  const send = useCallback(() => {
    clearTimeout(timer.current);
    const annotations = waiting.current;
    waiting.current = undefined;
    if (!annotations) return;
    host.annotate?.(place, annotations).then(
      () => setTrouble(""),
      (error: Error) => setTrouble(error.message),
    );
  }, [host, place]);
  useEffect(() => {
    addEventListener("pagehide", send);
    return () => {
      removeEventListener("pagehide", send);
      send(); // another graph takes this one's place
    };
  }, [send]);
  const keep = useCallback(
    (annotations: Annotations) => {
      waiting.current = annotations;
      clearTimeout(timer.current);
      timer.current = window.setTimeout(send, SOON);
    },
    [send],
  );
  const told = trouble ? (
    <p class="trouble" role="alert">
      What was written is not kept. {trouble}
    </p>
  ) : null;
  return [host.annotate && keep, told];
}
