/** What was written, how sure the model was, and which model it was. */

import type { ExplainDoc, TokenInfo } from "../contract.ts";
import { probability, seconds, shortened, visible } from "../model/numbers.ts";
import type { PanelProps } from "./common.tsx";
import { leastCertain } from "../state.ts";
import { tintStyle } from "./grid.tsx";

export function Header(props: PanelProps) {
  const { doc } = props;
  return (
    <header>
      <p class="title">
        <bdi title={doc.title}>{shortened(doc.title, 200)}</bdi>
      </p>
      <h1>
        <Answer doc={doc} />
      </h1>
      <InShort doc={doc} />
      <Tokens {...props} />
      <Reference doc={doc} />
      <Facts doc={doc} />
    </header>
  );
}

function Answer({ doc }: { doc: ExplainDoc }) {
  const { text } = doc.transcript;
  if (!text.trim()) return <>The model wrote nothing.</>;
  const least = doc.in_words.length > 0 ? undefined : leastCertain(doc);
  return (
    <>
      The model wrote “<bdi>{shortened(text.trim(), 240)}</bdi>”
      {least && (
        <span class="least">
          Least certain word: “<bdi>{shortened(least.text.trim(), 60)}</bdi>”, p = {probability(least.p)}
          {least.last_token > least.first_token && " (mean of its tokens, punctuation left out)"}
        </span>
      )}
      {doc.cautions.map((line) => (
        <span class="least caution" key={line}>
          {line}
        </span>
      ))}
    </>
  );
}

/** What was found, in words; the first line is what the heading says already. */
function InShort({ doc }: { doc: ExplainDoc }) {
  const [, ...lines] = doc.in_words;
  if (lines.length === 0) return null;
  return (
    <ul class="in-short" aria-label="In short">
      {lines.map((line, i) => (
        <li key={i}>
          <bdi>{shortened(line, 600)}</bdi>
        </li>
      ))}
    </ul>
  );
}

function Tokens({ doc, token, select }: PanelProps) {
  const { tokens } = doc.transcript;
  if (tokens.length === 0) return null;
  const onKeyDown = (event: KeyboardEvent) => {
    const end = { Home: 0, End: tokens.length - 1 }[event.key];
    if (end === undefined) return;
    select(end);
    event.preventDefault();
  };
  return (
    <div class="tokens-block">
      <div class="tokens" role="listbox" aria-label="Tokens of the transcript" aria-orientation="horizontal" onKeyDown={onKeyDown}>
        {tokens.map((one) => (
          <Token key={one.index} one={one} selected={one.index === token} select={select} />
        ))}
      </div>
      <p class="legend">
        <span>certain</span>
        <span class="ramp doubt" aria-hidden="true" />
        <span>doubtful</span>
        <span class="hint">Choose a token: what is below follows{followsNot(doc)}. ← → step through them, space plays.</span>
      </p>
      <p class="note">
        p and entropy here are among the tokens that may be written at that place; the logit lens and the circuit count all tokens.
      </p>
    </div>
  );
}

/** Rows of features stay those of the token that they were chosen for. */
function followsNot(doc: ExplainDoc): string {
  const of = doc.feature_rows.find(({ token }) => token !== undefined)?.token;
  const text = doc.transcript.tokens[of ?? -1]?.text.trim();
  return text === undefined ? "" : `, but for the features under the sound, which are those of “${shortened(text, 24)}”`;
}

function Token({ one, selected, select }: { one: TokenInfo; selected: boolean; select: (token: number) => void }) {
  return (
    <button
      type="button"
      role="option"
      class="token"
      data-token={one.index}
      aria-selected={selected}
      tabIndex={selected ? 0 : -1}
      style={tintStyle(1 - one.p)}
      title={`token ${one.index}, id ${one.id}, p = ${probability(one.p)}`}
      onClick={() => select(one.index)}
    >
      <bdi>{visible(one.text).replace(/^␣/, "")}</bdi>
    </button>
  );
}

function Reference({ doc }: { doc: ExplainDoc }) {
  const { reference, wer } = doc.transcript;
  if (reference === undefined) return null;
  return (
    <p class="reference">
      Reference: “<bdi>{shortened(reference, 400)}</bdi>”
      {wer !== undefined && <> — word error rate {(100 * wer).toFixed(1)} %</>}
    </p>
  );
}

function Facts({ doc }: { doc: ExplainDoc }) {
  const { model, transcript, audio } = doc;
  const facts: [string, unknown][] = [
    ["Recording", audio.file],
    ["Language", transcript.language],
    ["No-speech probability", transcript.no_speech_prob?.toFixed(3)],
    ["Mean log-probability", transcript.avg_logprob?.toFixed(3).replace("-", "−")],
    ["Compression ratio", transcript.compression_ratio?.toFixed(2)],
    ["Weights from", model.source],
    ["SHA-256", model.sha256],
    ["Computed in", `${model.dtype}, attention: ${model.attention}`],
    ["Seed", doc.seed],
    ...Object.entries(doc.settings),
    ...Object.entries(doc.versions),
  ];
  const known = facts.filter(([, value]) => value !== undefined && value !== null);
  return (
    <details class="facts">
      <summary>
        <bdi>{shortened(model.name, 80)}</bdi> ({shortened(model.family, 40)}, {model.encoder_layers} encoder and{" "}
        {model.decoder_layers} decoder layers, {model.heads} heads) · {seconds(audio.duration)} of sound · settings
      </summary>
      <dl>
        {known.map(([name, value], i) => (
          <div key={i}>
            <dt>
              <bdi>{shortened(name, 80)}</bdi>
            </dt>
            <dd>
              <bdi>{String(value)}</bdi>
            </dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
