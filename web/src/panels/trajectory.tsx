/** One token through the decoder's layers: how probable it was after each, and how undecided the layer was. */

import type { LensToken } from "../contract.ts";
import { probability } from "../model/numbers.ts";

const WIDTH = 320;
const HEIGHT = 96;
const EDGE = 14;

export function Trajectory({ lens }: { lens: LensToken }) {
  const layers = lens.layers.toSorted((a, b) => a.layer - b.layer);
  if (layers.length < 2) return null;
  const most = Math.max(0.1, ...layers.map((layer) => layer.entropy));
  const x = (i: number) => EDGE + (i / (layers.length - 1)) * (WIDTH - 2 * EDGE);
  const y = (share: number) => HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE);
  const line = (shares: number[]) => shares.map((share, i) => `${x(i).toFixed(1)},${y(share).toFixed(1)}`).join(" ");
  const told = layers.map((l) => `layer ${l.layer}: p ${probability(l.p_final)}, rank ${l.rank_final}, entropy ${l.entropy.toFixed(2)}`);
  return (
    <figure class="trajectory" data-testid="trajectory">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`By layer: ${told.join("; ")}`}>
        <line class="ground" x1={EDGE} x2={WIDTH - EDGE} y1={y(0)} y2={y(0)} />
        <polyline class="entropy" points={line(layers.map((layer) => layer.entropy / most))} />
        <polyline class="p" points={line(layers.map((layer) => layer.p_final))} />
        {layers.map((layer, i) => (
          <g key={layer.layer}>
            <circle class={layer.rank_final === 0 ? "top" : ""} cx={x(i)} cy={y(layer.p_final)} r={layer.rank_final === 0 ? 4 : 3}>
              <title>{told[i]}</title>
            </circle>
            <text x={x(i)} y={HEIGHT - 2}>
              {layer.layer}
            </text>
          </g>
        ))}
      </svg>
      <figcaption>
        <span class="key p" /> p of the written token, filled where it is on top <span class="key entropy" /> entropy, to{" "}
        {most.toFixed(1)} nats; by layer
      </figcaption>
    </figure>
  );
}
