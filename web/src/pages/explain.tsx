/** One explained clip. */

import "../css/explain.css";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ExplainDoc } from "../contract.ts";
import { Linked, tokenAt } from "../linked.ts";
import { AccountBook } from "../model/accounts.ts";
import { resourceUrl } from "../model/resources.ts";
import { AblationPanel } from "../panels/ablation.tsx";
import { AudioBench } from "../panels/audio.tsx";
import { useSpaceKey } from "../panels/bench/keys.ts";
import { Chosen } from "../panels/chosen.tsx";
import { CircuitPanel } from "../panels/circuit.tsx";
import { EncoderLensPanel } from "../panels/encoder.tsx";
import { Figure } from "../panels/figure.tsx";
import { Footer } from "../panels/footer.tsx";
import { Header } from "../panels/header.tsx";
import { Experiment } from "../panels/experiment.tsx";
import { IntervenePanel } from "../panels/intervene.tsx";
import { LogitLensPanel } from "../panels/lens.tsx";
import { usePlayer } from "../panels/player.ts";
import { WhichSound } from "../panels/which.tsx";
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
  const onTime = useRef<(time: number) => void>(() => undefined);
  const player = usePlayer((time) => onTime.current(time));
  const url = useMemo(() => resourceUrl(doc, "audio"), [doc]);
  useSpaceKey(player.toggle);
  const linked = useMemo(() => new Linked((time) => tokenAt(doc, time)), [doc]);
  const main = useRef<HTMLElement>(null);
  useEffect(() => linked.watch(main.current as HTMLElement), [linked]);
  const book = useMemo(() => doc.accounts && new AccountBook(doc.accounts, doc), [doc]);
  const shared = { doc, token, select };
  return (
    <Experiment>
    <main data-token={token} ref={main}>
      <audio ref={player.element} src={url} preload="auto" />
      <Header {...shared} />
      <Chosen {...shared} />
      <WhichSound {...shared} book={book} player={player} />
      <Figure name="sound" title="Sound" about="Waveform, log-mel as the model was given it, words, and attention of the chosen token over time.">
        <AudioBench {...shared} book={book} player={player} url={url} linked={linked} onTime={onTime} />
      </Figure>
      <LogitLensPanel {...shared} />
      <EncoderLensPanel {...shared} />
      <Figure name="ablation" title={`What token ${token} depends on`} about="Change of the token's log-probability, in nats, when each block and each head is zeroed.">
        <AblationPanel {...shared} />
      </Figure>
      <CircuitPanel {...shared} linked={linked} />
      <IntervenePanel {...shared} />
      <Footer doc={doc} />
    </main>
    </Experiment>
  );
}

/** What uses the arrow keys itself. */
const KEEPS_ARROWS = "input, textarea, select, .graph-panel, .scroll, .bench";

/** Left and right arrows step through the tokens, and the focus follows where it was on a token. */
function useStepKeys(token: number, step: (by: number) => void): void {
  useLayoutEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const target = event.target as HTMLElement;
      if (!by || event.altKey || event.ctrlKey || event.metaKey || target.closest(KEEPS_ARROWS)) return;
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
