/** One canvas row: it stays in view and shows what of the axis is in view. */

import { useLayoutEffect, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Surface } from "../../draw/rows.ts";
import type { TimeAxis } from "../../model/time.ts";
import { useDark } from "../common.tsx";

interface RowProps {
  name: string; // for tests and screen readers
  label: ComponentChildren;
  height: number;
  seen: TimeAxis;
  draw: (surface: Surface) => void;
  keys: unknown[]; // what it is drawn from
  feature?: string;
}

export function Row({ name, label, height, seen, draw, keys, feature }: RowProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  useLayoutEffect(() => {
    if (canvas.current) draw({ canvas: canvas.current, axis: seen, height, dark });
  }, [seen, dark, height, ...keys]);
  return (
    <div class="row" data-row={name} data-feature={feature}>
      <span class="row-name">{label}</span>
      <canvas ref={canvas} role="img" aria-label={`${name} over time`} />
    </div>
  );
}
