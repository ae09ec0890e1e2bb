/** The encoder lens: what the decoder writes when it listens to an earlier encoder layer. */

import type { EncoderLensLayer } from "../contract.ts";
import { shortened } from "../model/numbers.ts";
import { Panel, type PanelProps } from "./common.tsx";
import { Figure } from "./figure.tsx";

const LONG = 280; // characters shown before "more"; early layers like to repeat themselves

const KINDS: Record<string, string> = {
  empty: "nothing was written",
  punctuation: "no letter and no digit",
  event: "a sound event in brackets",
  loop: "the same over and over",
  ungrounded: "words, but not what was said",
  correct: "what was said",
};

export function EncoderLensPanel({ doc }: PanelProps) {
  return <EncoderLadder rungs={doc.encoder_lens} against={doc.transcript.reference === undefined ? "transcript" : undefined} />;
}

export function EncoderLadder({ rungs, against }: { rungs: EncoderLensLayer[]; against?: "transcript" | "reference" | undefined }) {
  const fromTop = rungs.toSorted((a, b) => b.layer - a.layer);
  const typed = fromTop.some((rung) => rung.type !== undefined);
  return (
    <Panel
      name="encoder-lens"
      title="Encoder lens"
      lead="What the decoder writes when it listens to one encoder layer, passed through the final layer norm, instead of the last."
    >
      <Figure name="encoder-lens" title="Encoder lens" about="What the decoder writes when it listens to one encoder layer instead of the last, with the type of each text.">
        <ol class="ladder" reversed>
          {fromTop.map((rung, i) => (
            <li key={rung.layer} class={rung.is_final_text ? "same" : ""}>
              <span class="rung">layer {rung.layer}</span>
              <Written rung={rung} />
              <span class="flags">
                {rung.type !== undefined && (
                  <span class={`verdict-kind ${rung.type in KINDS ? rung.type : ""}`} title={KINDS[rung.type]}>
                    {shortened(rung.type, 40)}
                  </span>
                )}
                {i === 0 && <span class="flag">the ordinary transcript</span>}
                {i > 0 && rung.is_final_text && <span class="flag">already the same text</span>}
              </span>
            </li>
          ))}
        </ol>
      </Figure>
      {typed && (
        <p class="note">
          Types are told{against !== undefined && ` by the ${against}`}: {Object.keys(KINDS).filter((kind) => fromTop.some((rung) => rung.type === kind)).map((kind) => `${kind}, ${KINDS[kind]}`).join("; ")}.
        </p>
      )}
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
