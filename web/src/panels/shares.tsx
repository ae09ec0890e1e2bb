/** Shares that add up to one, a bar a layer; each part is named in words, too. */

import type { CurvePanel } from "../contract.ts";
import { shortened } from "../model/numbers.ts";

export function Shares({ panel }: { panel: CurvePanel }) {
  const layers = [...new Set(panel.series.flatMap((one) => one.points.map((point) => point.x)))].sort((a, b) => b - a);
  return (
    <div class="shares" role="list" aria-label={`${shortened(panel.title, 80)}, by layer`}>
      {layers.map((layer) => {
        const parts = panel.series.map((one, i) => ({ i, name: shortened(one.name, 30), point: one.points.find((each) => each.x === layer) })).filter((part) => (part.point?.y ?? 0) > 0);
        return (
          <div class="share-row" role="listitem" key={layer}>
            <span class="rung">layer {layer}</span>
            <span class="share-bar">
              {parts.map(({ i, name, point }) => (
                <span
                  key={i}
                  class={`share-part share-part-${i % 6}`}
                  style={{ flexGrow: point?.y }}
                  title={`${name} ${percent(point?.y)}${point?.low !== undefined ? ` (${percent(point.low)} to ${percent(point.high)})` : ""}`}
                >
                  <bdi>{name}</bdi> {percent(point?.y)}
                </span>
              ))}
            </span>
          </div>
        );
      })}
    </div>
  );
}

function percent(share: number | undefined): string {
  return `${Math.round(100 * (share ?? 0))} %`;
}
