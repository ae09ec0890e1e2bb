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
            <Kind rung={rung} last={i === 0} />
          </li>
        ))}
      </ol>
    </Panel>
  );
}

const KINDS: Record<string, string> = {
  empty: "nothing",
  punctuation: "punctuation only",
  event: "a sound event",
  loop: "a loop",
  ungrounded: "other words",
  correct: "nearly the transcript",
};

/** What kind of text a layer gives, beside the ordinary transcript. */
function Kind({ rung, last }: { rung: EncoderLensLayer; last: boolean }) {
  if (last) return <span class="flag">the ordinary transcript</span>;
  if (rung.is_final_text) return <span class="flag">already the same text</span>;
  const kind = rung.type === undefined ? undefined : (KINDS[rung.type] ?? shortened(rung.type, 40));
  return kind ? <span class={`flag kind ${rung.type === "correct" ? "" : "other"}`}>{kind}</span> : null;
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
