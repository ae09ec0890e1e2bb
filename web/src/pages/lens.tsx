/** What each layer knows of one recording or prompt. */

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { LensDoc } from "../contract.ts";
import { addressWith, indexInAddress } from "../model/address.ts";
import { spellComponent } from "../model/experiment.ts";
import { probability, shortened, visible } from "../model/numbers.ts";
import { Foot, Head } from "../panels/about.tsx";
import { EncoderLadder } from "../panels/encoder.tsx";
import { Experiment } from "../panels/experiment.tsx";
import { ChangePanel, Offer } from "../panels/intervene.tsx";
import { tintStyle } from "../panels/grid.tsx";
import { LensPanel } from "../panels/lens.tsx";

/** What a language model makes of a prompt can be changed; of a recording only the page that carries it can. */
export function LensPage({ doc }: { doc: LensDoc }) {
  const page = <Shown doc={doc} />;
  return doc.is_prompt ? <Experiment>{page}</Experiment> : page;
}

function Shown({ doc }: { doc: LensDoc }) {
  const count = doc.tokens.length;
  const [token, setToken] = useState(() => indexInAddress(location.hash, "token", count) ?? leastSure(doc));
  const list = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const follow = () => setToken((now) => indexInAddress(location.hash, "token", count) ?? now);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [count]);
  const select = useCallback((next: number) => {
    setToken(next);
    location.hash = addressWith(location.hash, { token: String(next) });
  }, []);
  useLayoutEffect(() => {
    const own = list.current;
    if (own?.contains(document.activeElement)) own.querySelector<HTMLElement>("[aria-selected=true]")?.focus();
  }, [token]);
  const onKeyDown = (event: KeyboardEvent) => {
    const next = { ArrowLeft: token - 1, ArrowRight: token + 1, Home: 0, End: count - 1 }[event.key];
    if (next === undefined) return;
    if (next >= 0 && next < count) select(next);
    event.preventDefault();
  };
  return (
    <main data-token={token}>
      <Head doc={doc} headline={<Headline doc={doc} />}>
        {doc.is_prompt ? "Each token below is what the model predicts after that place of the text." : "Each token below was written by the model."} Choose one; everything below follows.
      </Head>
      {count > 0 && (
        <div class="tokens" ref={list} role="listbox" aria-label="Tokens" aria-orientation="horizontal" onKeyDown={onKeyDown}>
          {doc.tokens.map((one) => {
            const last = doc.logit_lens.tokens[one.index]?.layers.at(-1);
            return (
              <button
                type="button"
                role="option"
                class="token"
                key={one.index}
                data-token={one.index}
                aria-selected={one.index === token}
                tabIndex={one.index === token ? 0 : -1}
                style={tintStyle(1 - (last?.p_final ?? 1))}
                title={`token ${one.index}, id ${one.id}${last ? `, p = ${probability(last.p_final)}` : ""}`}
                onClick={() => select(one.index)}
              >
                <bdi>{visible(shortened(one.text, 60)).replace(/^␣/, "")}</bdi>
              </button>
            );
          })}
        </div>
      )}
      <LensPanel lens={doc.logit_lens} tokens={doc.tokens} token={token} select={select} />
      {doc.encoder_lens.length > 0 && <EncoderLadder rungs={doc.encoder_lens} against={doc.typed_against} />}
      {doc.is_prompt && (
        <ChangePanel model={doc.model} given={{ of: "prompt", text: doc.text }} how={{}}>
          <Offers doc={doc} token={token} />
        </ChangePanel>
      )}
      <Foot doc={doc}>
        <li>Tokens, layers and ranks are numbered from 0; rank 0 is the most probable token. Entropies are in nats.</li>
      </Foot>
    </main>
  );
}

/** The layer from which on the chosen token stays on top, whose blocks may have put it there. */
function Offers({ doc, token }: { doc: LensDoc; token: number }) {
  const layer = doc.logit_lens.tokens[token]?.saturation_layer;
  if (layer === undefined) return null;
  return (
    <div class="offers" role="group" aria-label="Changes near the chosen token">
      {(["attn", "mlp"] as const).map((part) => (
        <Offer
          key={part}
          change={{ kind: "zero", text: spellComponent({ stack: "text", layer, part }) }}
          said={`Zero the ${part === "mlp" ? "MLP" : "attention"} of layer ${layer}`}
          why="from there on the token is on top"
        />
      ))}
    </div>
  );
}

function Headline({ doc }: { doc: LensDoc }) {
  if (!doc.text.trim()) return <>The model wrote nothing.</>;
  return (
    <>
      {doc.is_prompt ? "The model read" : "The model wrote"} “<bdi>{shortened(doc.text.trim(), 240)}</bdi>”
    </>
  );
}

/** The token whose last layer gives it least; -1 without tokens. */
function leastSure(doc: LensDoc): number {
  const last = doc.logit_lens.tokens.map((token) => token.layers.at(-1)?.p_final ?? 1);
  return last.indexOf(Math.min(...last));
}
