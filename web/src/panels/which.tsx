/** Which sound made a token: the stretch that carried it, every word's part, and what else made its logit. */

import type { ExplainDoc } from "../contract.ts";
import type { AccountBook, Source, Stretch } from "../model/accounts.ts";
import { decimal, shortened, visible } from "../model/numbers.ts";
import type { Span } from "../model/time.ts";
import { Panel, type PanelProps, Quoted } from "./common.tsx";
import type { Player } from "./player.ts";

interface Props extends PanelProps {
  book: AccountBook | undefined;
  player: Player;
}

const SHOWN = 5;

export function WhichSound({ doc, token, select, book, player }: Props) {
  const one = doc.transcript.tokens[token];
  const account = book?.accounts.tokens[token];
  if (!one || !book || !account) return null;
  const text = <bdi>{shortened(one.text.trim(), 40) || visible(one.text)}</bdi>;
  return (
    <Panel
      name="which-sound"
      title={<>Which sound made “{text}”?</>}
      lead="Each part of the sound, each word before and each bias added its share to the token’s logit. Here all of them are counted, along every path through the decoder."
    >
      <Carried doc={doc} token={token} player={player} />
      <div class="halves">
        <Stretches stretches={book.stretches(token)} player={player} />
        <Sources sources={book.sources(token)} value={account.value} />
      </div>
      <Before doc={doc} token={token} book={book} select={select} />
    </Panel>
  );
}

function Carried({ doc, token, player }: { doc: ExplainDoc; token: number; player: Player }) {
  const carried = doc.accounts?.tokens[token]?.carried;
  if (!carried) return <p class="carried-words">No single stretch of the clip holds half of what the sound said for it.</p>;
  const heads = carried.heads.map(({ layer, head, share }) => `${layer}.${head} (${percent(share)})`);
  return (
    <p class="carried-words" data-testid="carried-words">
      <button type="button" class="play" onClick={() => player.play(carried)}>
        <span aria-hidden="true">▶</span> Play {carried.start.toFixed(2)}–{carried.end.toFixed(2)} s
      </button>{" "}
      <strong>{percent(carried.share)}</strong> of what the sound said for it lies there, marked blue on the time axis
      {heads.length > 0 && <>; it came by the cross-attention heads (layer.head) {heads.join(", ")}</>}.
    </p>
  );
}

function Stretches({ stretches, player }: { stretches: Stretch[]; player: Player }) {
  const best = stretches.toSorted((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, SHOWN);
  const most = Math.max(1e-9, ...best.map(({ value }) => Math.abs(value)));
  return (
    <div>
      <h3>Where the sound was</h3>
      <ol class="bars">
        {best.map((one) => (
          <li key={one.start}>
            <button type="button" class="link" disabled={one.kind === "padding"} onClick={() => player.play(one)} title={times(one)}>
              <Name stretch={one} />
            </button>
            <Bar value={one.value} most={most} />
            <span class="number">
              {one.value > 0 ? percent(one.share) : "against"}{" "}
              <small>{signed(one.value)}</small>
            </span>
          </li>
        ))}
      </ol>
    </div>
  );
}

function Name({ stretch }: { stretch: Stretch }) {
  if (stretch.kind === "padding") return <>the padding</>;
  if (stretch.kind === "pause") return <>{times(stretch)}</>;
  return (
    <>
      “<bdi>{shortened(stretch.label, 24)}</bdi>” <small>{times(stretch)}</small>
    </>
  );
}

function Sources({ sources, value }: { sources: Source[]; value: number }) {
  const most = Math.max(1e-9, ...sources.map((one) => Math.abs(one.value)));
  return (
    <div>
      <h3>Everything that made its {decimal(value)} logits</h3>
      <ol class="bars">
        {sources.map((one) => (
          <li key={one.name}>
            <span>{one.name}</span>
            <Bar value={one.value} most={most} />
            <span class="number">{signed(one.value)}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}

function Bar({ value, most }: { value: number; most: number }) {
  return <span class={value < 0 ? "said-bar against" : "said-bar"} aria-hidden="true" style={{ "--size": Math.abs(value) / most }} />;
}

function Before({ doc, token, book, select }: { doc: ExplainDoc; token: number; book: AccountBook; select: (token: number) => void }) {
  const before = book.tokensBefore(token, 4);
  if (before.length === 0) return null;
  return (
    <p class="note">
      Of the words before:{" "}
      {before.map(({ token: one, value }) => (
        <span key={one} class="said-before">
          {" "}
          <button type="button" class="link" data-token={one} onClick={() => select(one)}>
            <Quoted text={doc.transcript.tokens[one]?.text ?? ""} />
          </button>{" "}
          {signed(value)}{" "}
        </span>
      ))}
      — logits over the vocabulary’s mean. The encoder is taken as given, and attention and gates as they were: this says what was
      read, not what would happen without it.
    </p>
  );
}

function times({ start, end }: Span): string {
  return `${start.toFixed(2)}–${end.toFixed(2)} s`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

function signed(value: number): string {
  return (value < 0 ? "" : "+") + decimal(value);
}
