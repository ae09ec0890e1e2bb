/** The page of one explained clip. */

import "./page.css";
import { render } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import type { ExplainDoc } from "./contract.ts";
import { readDocument } from "./host.ts";
import { AblationPanel } from "./panels/ablation.tsx";
import { AudioBench } from "./panels/audio.tsx";
import { Chosen } from "./panels/chosen.tsx";
import { EncoderLensPanel } from "./panels/encoder.tsx";
import { Footer } from "./panels/footer.tsx";
import { Header } from "./panels/header.tsx";
import { LogitLensPanel } from "./panels/lens.tsx";
import { hashOf, initialToken, tokenInHash } from "./state.ts";

function Page({ doc }: { doc: ExplainDoc }) {
  const count = doc.transcript.tokens.length;
  const [token, setToken] = useState(() => initialToken(doc, location.hash));
  const select = useCallback((next: number) => {
    if (next < 0 || next >= count) return;
    setToken(next);
    location.hash = hashOf(next);
  }, [count]);
  useEffect(() => {
    const onHash = () => setToken((current) => tokenInHash(location.hash, count) ?? current);
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, [count]);
  useStepKeys(token, select);
  const shared = { doc, token, select };
  return (
    <main data-token={token}>
      <Header {...shared} />
      <Chosen {...shared} />
      <AudioBench {...shared} />
      <LogitLensPanel {...shared} />
      <EncoderLensPanel {...shared} />
      <AblationPanel {...shared} />
      <Footer doc={doc} />
    </main>
  );
}

/** Left and right arrows step through the tokens, and the focus follows where it was on a token. */
function useStepKeys(token: number, select: (token: number) => void): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const target = event.target as HTMLElement;
      if (!step || event.altKey || event.ctrlKey || event.metaKey || target.closest(".scroll, .bench")) return;
      event.preventDefault();
      select(token + step);
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [token, select]);
  useEffect(() => {
    if (document.activeElement?.classList.contains("token")) {
      document.querySelector<HTMLElement>(".token[aria-selected=true]")?.focus();
    }
  }, [token]);
}

const place = document.getElementById("page") as HTMLElement;
try {
  const doc = await readDocument();
  place.replaceChildren();
  render(<Page doc={doc} />, place);
} catch (error) {
  place.textContent = `This page cannot be shown. ${error instanceof Error ? error.message : ""}`;
}
