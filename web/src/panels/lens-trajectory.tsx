/** How the chosen token, pinned tokens and pinned candidates fare from layer to layer. */

import { useState } from "preact/hooks";
import type { Candidate, LensToken } from "../contract.ts";
import { candidate, type LensMeasure, trajectory } from "../model/lens.ts";
import { decimal, probability, shortened, visible } from "../model/numbers.ts";
import { Chart, DASHES, type Line } from "./chart.tsx";
import { Figure } from "./figure.tsx";
import type { LensProps } from "./lens.tsx";

const MOST = 5; // lines that can be told apart

export interface Pins {
  candidates: Candidate[]; // rivals of the chosen token
  tokens: number[]; // other tokens of the text
  toggleCandidate: (one: Candidate) => void;
  toggleToken: (index: number) => void;
}

export function usePins(): Pins {
  const [candidates, setCandidates] = useState<Candidate[]>([]);
  const [tokens, setTokens] = useState<number[]>([]);
  return {
    candidates,
    tokens,
    toggleCandidate: (one) => setCandidates((all) => (all.some((pinned) => pinned.id === one.id) ? all.filter((pinned) => pinned.id !== one.id) : [...all, one].slice(-MOST))),
    toggleToken: (index) => setTokens((all) => (all.includes(index) ? all.filter((pinned) => pinned !== index) : [...all, index].slice(-MOST))),
  };
}

/** A candidate in the table: pressing it draws its line below. */
export function Pin({ candidate: one, pins, written }: { candidate: Candidate; pins: Pins; written: boolean }) {
  const text = (
    <>
      <bdi>{visible(one.text)}</bdi> <small>{probability(one.p)}</small>
    </>
  );
  if (written) return text;
  return (
    <button type="button" class="pin" aria-pressed={pins.candidates.some((pinned) => pinned.id === one.id)} title="Draw this candidate below" onClick={() => pins.toggleCandidate(one)}>
      {text}
    </button>
  );
}

const NAMES: Record<LensMeasure, string> = { probability: "probability", rank: "rank", entropy: "entropy in nats" };

export function Trajectory({ lens, tokens, token, by, pins }: LensProps & { by: LensMeasure; pins: Pins }) {
  const read = lens.tokens[token] as LensToken;
  const own = visible(shortened(tokens[token]?.text ?? "", 24));
  const pinned = pins.tokens.includes(token);
  const lines: Line[] = [{ name: own, points: trajectory(read, by), colour: 0 }];
  for (const index of pins.tokens) {
    const other = lens.tokens[index];
    if (other && index !== token) lines.push({ name: `${visible(shortened(tokens[index]?.text ?? "", 24))} (token ${index})`, points: trajectory(other, by), colour: lines.length % 5, dash: DASHES[1], thin: true });
  }
  for (const one of pins.candidates) {
    const points = candidate(read, one.id, by);
    if (points.length) lines.push({ name: `${visible(shortened(one.text, 24))} instead`, points, colour: lines.length % 5, thin: true });
  }
  const title = `${NAMES[by]} of ${own} from layer to layer`;
  return (
    <Figure name="lens-trajectory" title={title} about={`Token ${token}, read at each layer as if it were the last${lines.length > 1 ? "; beside it what was pinned" : ""}.`}>
      <div class="trajectory" data-testid="trajectory">
        <h3>
          How{" "}
          <q class="quoted">
            <bdi>{own}</bdi>
          </q>{" "}
          comes to be written{" "}
          <button type="button" class="pin-token" data-picture="no" aria-pressed={pinned} onClick={() => pins.toggleToken(token)}>
            {pinned ? "Unpin this token" : "Pin this token"}
          </button>
        </h3>
        <Chart
          label={title}
          lines={lines}
          xName="layer (from 0)"
          yName={NAMES[by]}
          domain={by === "probability" ? [0, 1] : undefined}
          ranks={by === "rank"}
          write={by === "probability" ? probability : by === "rank" ? String : decimal}
          height={200}
        />
        <ul class="lines-legend">
          {lines.map((line, i) => (
            <li key={i}>
              <svg class={`chart-line series-${line.colour}${line.thin ? " thin" : ""}`} width="28" height="10" aria-hidden="true">
                <path class="stroke" d="M1 5H27" stroke-dasharray={line.dash} />
              </svg>
              <bdi>{line.name}</bdi>
            </li>
          ))}
        </ul>
        <p class="note" data-picture="no">
          Press a candidate above to draw it here, too; it has a line where it is among the {Math.max(0, ...read.layers.map((layer) => layer.top.length))} most probable. A pinned token stays while you choose another.
        </p>
      </div>
    </Figure>
  );
}
