/** The encoder lens: what the decoder writes when it listens to an earlier encoder layer. */

import type { EncoderLensLayer } from "../contract.ts";
import { shortened } from "../model/numbers.ts";
import { Panel, type PanelProps } from "./common.tsx";

const LONG = 280; // characters shown before "more"; early layers like to repeat themselves

export function EncoderLensPanel({ doc }: PanelProps) {
  const rungs = doc.encoder_lens.toSorted((a, b) => b.layer - a.layer);
  return (
    <Panel
      name="encoder-lens"
      title="Encoder lens"
      lead="What the decoder writes when it listens to one encoder layer, passed through the final layer norm, instead of the last."
    >
      <ol class="ladder" reversed>
        {rungs.map((rung, i) => (
          <li key={rung.layer} class={rung.is_final_text ? "same" : ""}>
            <span class="rung">layer {rung.layer}</span>
            <Written rung={rung} />
            {i === 0 && <span class="flag">the ordinary transcript</span>}
            {i > 0 && rung.is_final_text && <span class="flag">already the same text</span>}
          </li>
        ))}
      </ol>
    </Panel>
  );
}

function Written({ rung }: { rung: EncoderLensLayer }) {
  if (!rung.text.trim()) return <span class="nothing">nothing</span>;
  if (rung.text.length <= LONG) return <bdi class="written">{rung.text.trim()}</bdi>;
  return (
    <details class="written">
      <summary>
        <bdi>{shortened(rung.text.trim(), LONG)}</bdi>
      </summary>
      <bdi>{rung.text.trim()}</bdi>
    </details>
  );
}
