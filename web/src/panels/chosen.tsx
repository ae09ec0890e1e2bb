/** The bar that stays in view: which token everything below is about. */

import { decimal, probability, seconds } from "../model/numbers.ts";
import { type PanelProps, Quoted } from "./common.tsx";

export function Chosen({ doc, token, select }: PanelProps) {
  const one = doc.transcript.tokens[token];
  if (!one) return null;
  const count = doc.transcript.tokens.length;
  return (
    <nav class="chosen" aria-label="Chosen token">
      <button type="button" aria-label="Previous token" disabled={token === 0} onClick={() => select(token - 1)}>
        ←
      </button>
      <button type="button" aria-label="Next token" disabled={token === count - 1} onClick={() => select(token + 1)}>
        →
      </button>
      <span class="which" data-testid="chosen">
        token {token} <Quoted text={one.text} />
      </span>
      <span class="numbers">
        p {probability(one.p)} · log p {decimal(one.logprob)} · entropy {decimal(one.entropy)} nats
        {one.start !== undefined && one.end !== undefined && (
          <>
            {" "}
            · {one.start.toFixed(2)}–{seconds(one.end)}
          </>
        )}
      </span>
    </nav>
  );
}
