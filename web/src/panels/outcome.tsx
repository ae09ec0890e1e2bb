/** A text before and after a change: words, risk, tokens and lens side by side, and how much random changes do. */

import { useMemo, useState } from "preact/hooks";
import type { LensToken, Outcome, RiskInfo, TokenInfo } from "../contract.ts";
import { unpack } from "../model/arrays.ts";
import { changesOf, inWords } from "../model/experiment.ts";
import { change as nats, decimal, probability, shortened, visible } from "../model/numbers.ts";
import { partners } from "../model/pairing.ts";
import { Quoted } from "./common.tsx";
import { tintStyle } from "./grid.tsx";

export function OutcomeView({ outcome }: { outcome: Outcome }) {
  const [token, setToken] = useState(() => hardestHit(outcome));
  return (
    <div class="outcome">
      <Texts outcome={outcome} />
      <Verdict outcome={outcome} />
      <NextTokens outcome={outcome} />
      <Risks before={outcome.before.risk} after={outcome.after.risk} />
      <Tokens outcome={outcome} token={token} choose={setToken} />
      <Lenses outcome={outcome} token={token} />
      <ul class="note">
        {outcome.notes.map((line) => (
          <li key={line}>
            <bdi>{line}</bdi>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Texts({ outcome }: { outcome: Outcome }) {
  const side = (which: "before" | "after", Changed: "del" | "ins") => {
    const told = outcome.words.filter((run) => run[which]);
    if (told.length === 0) return <span class="nothing">nothing</span>;
    return told.map((run, i) => (
      <span key={i}>
        {i > 0 && " "}
        {run.op === "same" ? <bdi>{run[which]}</bdi> : <Changed><bdi>{run[which]}</bdi></Changed>}
      </span>
    ));
  };
  return (
    <dl class="sides">
      {outcome.prompt !== undefined && (
        <>
          <dt>Prompt</dt>
          <dd class="prompt">
            <bdi title={shortened(outcome.prompt, 2000)}>{shortened(outcome.prompt, 400)}</bdi>
          </dd>
        </>
      )}
      <dt>Before</dt>
      <dd>{side("before", "del")}</dd>
      <dt>After</dt>
      <dd>{side("after", "ins")}</dd>
    </dl>
  );
}

function Verdict({ outcome }: { outcome: Outcome }) {
  const { controls } = outcome;
  const changed = outcome.before.transcript.text !== outcome.after.transcript.text;
  const others = controls.filter((run) => run.changed).length;
  return (
    <>
      <p class="verdict">
        {changed ? "Another text." : "The same text."}{" "}
        {controls.length === 0 ? (
          "There is nothing of the same size elsewhere to compare with."
        ) : (
          <>
            The same change at random other places altered the text in <b>{others} of {controls.length}</b> runs.
          </>
        )}
      </p>
      {controls.length > 0 && <Strip outcome={outcome} />}
      {controls.length > 0 && (
        <details>
          <summary>The random changes</summary>
          <table class="strongest">
            <thead>
              <tr>
                <th scope="col">changed instead</th>
                <th scope="col">nats</th>
                <th scope="col">wrote</th>
              </tr>
            </thead>
            <tbody>
              {controls.map((run, i) => (
                <tr key={i}>
                  <th scope="row">
                    <bdi>{changesOf(run.intervention).map(inWords).join("; ")}</bdi>
                  </th>
                  <td class="number">{decimal(run.size)}</td>
                  <td>{run.changed ? <bdi title={run.text}>{shortened(run.text, 160)}</bdi> : <span class="nothing">the same</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </details>
      )}
    </>
  );
}

/** Mean size of the change of the written tokens: this one among the random ones, on one line. */
function Strip({ outcome }: { outcome: Outcome }) {
  const most = Math.max(outcome.size, ...outcome.controls.map((run) => run.size), 0.01);
  const at = (size: number) => `${(100 * size) / most}%`;
  return (
    <figure class="strip">
      <figcaption>
        Mean change of the written tokens, 0 to {decimal(most)} nats: <span class="own" /> this, <span class="other" /> random,{" "}
        <span class="other changed" /> random that altered the text
      </figcaption>
      <div class="track" role="img" aria-label={`This change ${decimal(outcome.size)} nats; random ones ${outcome.controls.map((run) => decimal(run.size)).join(", ")}`}>
        {outcome.controls.map((run, i) => (
          <span key={i} class={run.changed ? "other changed" : "other"} style={{ left: at(run.size) }} />
        ))}
        <span class="own" style={{ left: at(outcome.size) }} />
      </div>
    </figure>
  );
}

/** What a language model expects after the prompt, as it is and changed. */
function NextTokens({ outcome }: { outcome: Outcome }) {
  const { next_tokens: tokens } = outcome;
  if (tokens.length === 0) return null;
  const bar = (p: number) => (
    <>
      <span class="meter" aria-hidden="true">
        <span class="filled" style={{ width: `${100 * p}%` }} />
      </span>{" "}
      {probability(p)}
    </>
  );
  return (
    <div class="scroll">
      <table class="next-tokens" aria-label="Next token after the prompt, before and after">
        <thead>
          <tr>
            <th scope="col">next token</th>
            <th scope="col">before</th>
            <th scope="col">after</th>
          </tr>
        </thead>
        <tbody>
          {tokens.map(({ id, text, before, after }) => (
            <tr key={id}>
              <th scope="row">
                <Quoted text={text} />
              </th>
              <td class="number">{bar(before)}</td>
              <td class="number">{bar(after)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Risks({ before, after }: { before?: RiskInfo | undefined; after?: RiskInfo | undefined }) {
  if (!before || !after) return null;
  return (
    <dl class="risks">
      <Risk name="Risk before" risk={before} />
      <Risk name="Risk after" risk={after} />
    </dl>
  );
}

function Risk({ name, risk }: { name: string; risk: RiskInfo }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <span class="meter" aria-hidden="true">
          <span class={risk.alarm ? "filled rings" : "filled"} style={{ width: `${100 * risk.text}%` }} />
          <span class="threshold" style={{ left: `${100 * risk.threshold}%` }} />
        </span>{" "}
        {decimal(risk.text)} {risk.alarm ? <b>alarm</b> : <small>alarm from {decimal(risk.threshold)}</small>}
      </dd>
    </div>
  );
}

interface TokensProps {
  outcome: Outcome;
  token: number;
  choose: (token: number) => void;
}

function Tokens({ outcome, token, choose }: TokensProps) {
  const change = useMemo(() => unpack(outcome.change), [outcome]);
  const { tokens } = outcome.before.transcript;
  if (tokens.length === 0) return null;
  const reach = Math.max(0.01, ...change.map(Math.abs));
  return (
    <>
      <h3 class="lesser">The tokens written before: how much less or more probable they are now</h3>
      <div class="tokens" role="group" aria-label="Tokens written before; choosing one shows its lens">
        {tokens.map((one, i) => (
          <button
            key={i}
            type="button"
            class={`token ${(change[i] ?? 0) < 0 ? "falls" : "change"}`}
            aria-pressed={i === token}
            style={tintStyle((change[i] ?? 0) / reach)}
            title={`token ${i}, ${nats(change[i] ?? 0)} nats, p was ${probability(one.p)}`}
            onClick={() => choose(i)}
          >
            <bdi>{visible(one.text).replace(/^␣/, "")}</bdi>
          </button>
        ))}
      </div>
      <p class="legend">
        <span>less probable, {nats(-reach)}</span>
        <span class="ramp both" aria-hidden="true" />
        <span>{nats(reach)} nats, more probable</span>
      </p>
    </>
  );
}

/** What each layer reads where the chosen token was written, and where its partner (or what stands in its place) was. */
function Lenses({ outcome, token }: { outcome: Outcome; token: number }) {
  const { before, after } = outcome;
  const there = useMemo(() => counterpart(outcome, token), [outcome, token]);
  const one = before.transcript.tokens[token];
  if (!one) return null;
  const other = there === undefined ? undefined : after.transcript.tokens[there];
  const old = before.logit_lens.tokens[token];
  const now = there === undefined ? undefined : after.logit_lens.tokens[there];
  const layers = old?.layers.map(({ layer }) => layer).reverse() ?? [];
  return (
    <div class="scroll">
      <table class="readings" aria-label="Logit lens before and after">
        <thead>
          <tr>
            <th scope="col">layer</th>
            <th scope="col">
              before, token {token} <Quoted text={one.text} />
            </th>
            <th scope="col">
              after{other ? <>, token {there} <Quoted text={other.text} /></> : ": nothing in its place"}
            </th>
          </tr>
        </thead>
        <tbody>
          {layers.map((layer) => (
            <tr key={layer}>
              <th scope="row">{layer}</th>
              <Reading lens={old} layer={layer} written={one} />
              <Reading lens={now} layer={layer} written={other} />
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Reading({ lens, layer, written }: { lens: LensToken | undefined; layer: number; written: TokenInfo | undefined }) {
  const top = lens?.layers.find((one) => one.layer === layer)?.top[0];
  if (!top) return <td />;
  return (
    <td class={top.id === written?.id ? "amount written" : "amount"} style={tintStyle(top.p)} title={top.text}>
      <bdi>{visible(shortened(top.text, 40))}</bdi> <small>{probability(top.p)}</small>
    </td>
  );
}

/** The token of the new text that stands where a token of the old one stood. */
function counterpart({ before, after }: Outcome, token: number): number | undefined {
  const pairs = partners(before.transcript.tokens.map(({ id }) => id), after.transcript.tokens.map(({ id }) => id));
  const own = pairs.indexOf(token);
  if (own >= 0) return own;
  const previous = pairs.reduce<number>((last, of, i) => (of !== undefined && of < token ? i : last), -1);
  return pairs[previous + 1] === undefined && previous + 1 < pairs.length ? previous + 1 : undefined;
}

function hardestHit(outcome: Outcome): number {
  const change = unpack(outcome.change);
  return change.length ? change.indexOf(Math.min(...change)) : -1;
}
