/** One explained clip. */

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ExplainDoc } from "../contract.ts";
import { AblationPanel } from "../panels/ablation.tsx";
import { AudioBench } from "../panels/audio.tsx";
import { Chosen } from "../panels/chosen.tsx";
import { EncoderLensPanel } from "../panels/encoder.tsx";
import { Figure } from "../panels/figure.tsx";
import { Footer } from "../panels/footer.tsx";
import { Header } from "../panels/header.tsx";
import { LogitLensPanel } from "../panels/lens.tsx";
import { addressWith } from "../model/address.ts";
import { initialToken, tokenInHash } from "../state.ts";

export function ExplainPage({ doc }: { doc: ExplainDoc }) {
  const count = doc.transcript.tokens.length;
  const [token, setToken] = useState(() => initialToken(doc, location.hash));
  // The choice as of now: a second key can come before the first one's is drawn.
  const latest = useRef(token);
  const choose = useCallback((next: number) => {
    latest.current = next;
    setToken(next);
  }, []);
  const select = useCallback((next: number) => {
    if (next < 0 || next >= count) return;
    choose(next);
    location.hash = addressWith(location.hash, { token: String(next) });
  }, [count, choose]);
  const step = useCallback((by: number) => select(latest.current + by), [select]);
  useLayoutEffect(() => {
    const onHash = () => choose(tokenInHash(location.hash, count) ?? latest.current);
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, [count, choose]);
  useStepKeys(token, step);
  const shared = { doc, token, select };
  return (
    <main data-token={token}>
      <Header {...shared} />
      <Chosen {...shared} />
      <Figure name="sound" title="Sound" about="Waveform, log-mel as the model was given it, words, and attention of the chosen token over time.">
        <AudioBench {...shared} />
      </Figure>
      <LogitLensPanel {...shared} />
      <EncoderLensPanel {...shared} />
      <Figure name="ablation" title={`What token ${token} depends on`} about="Change of the token's log-probability, in nats, when each block and each head is zeroed.">
        <AblationPanel {...shared} />
      </Figure>
      <Footer doc={doc} />
    </main>
  );
}

/** Left and right arrows step through the tokens, and the focus follows where it was on a token. */
function useStepKeys(token: number, step: (by: number) => void): void {
  useLayoutEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const target = event.target as HTMLElement;
      if (!by || event.altKey || event.ctrlKey || event.metaKey || target.closest(".scroll, .bench")) return;
      event.preventDefault();
      step(by);
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [step]);
  useLayoutEffect(() => {
    if (document.activeElement?.classList.contains("token")) {
      document.querySelector<HTMLElement>(".token[aria-selected=true]")?.focus();
    }
  }, [token]);
}
