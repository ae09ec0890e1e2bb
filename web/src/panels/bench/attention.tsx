/** Where a head of cross-attention looked while the chosen token was written. */

import { useMemo, useState } from "preact/hooks";
import type { ExplainDoc } from "../../contract.ts";
import { drawAttention } from "../../draw/rows.ts";
import { Attention, MEAN } from "../../model/attention.ts";
import type { TimeAxis } from "../../model/time.ts";
import { Quoted } from "../common.tsx";
import { Row } from "./row.tsx";

export interface Looking {
  attention: Attention;
  choice: string;
  choose: (choice: string) => void;
}

export function useLooking(doc: ExplainDoc): Looking {
  const attention = useMemo(() => new Attention(doc), [doc]);
  const [choice, choose] = useState(MEAN);
  return { attention, choice, choose };
}

export function HeadChoice({ attention, choice, choose }: Looking) {
  const choices = attention.choices();
  if (choices.length < 2) return null;
  return (
    <label class="choice">
      Attention{" "}
      <select value={choice} onChange={(event) => choose(event.currentTarget.value)}>
        {choices.map((one) => (
          <option key={one} value={one}>
            {one === MEAN ? "mean of the alignment heads" : `layer.head ${one}${attention.aligns(one) ? " (alignment)" : ""}`}
          </option>
        ))}
      </select>
    </label>
  );
}

export function AttentionRow({ token, seen, attention, choice }: Looking & { token: number; seen: TimeAxis }) {
  if (token < 0) return null;
  const { weights, columnSeconds, peak, padding } = attention.of(token, choice);
  const which = choice === MEAN ? "mean" : `head ${choice}`;
  return (
    <Row
      name="attention"
      label={
        `attention of token ${token}, ${which}, peak ${peak.toFixed(2)}` +
        (padding === undefined ? "" : `, ${(100 * padding).toFixed(0)} % on the padding`)
      }
      height={60}
      seen={seen}
      draw={(surface) => drawAttention(surface, weights, columnSeconds)}
      keys={[token, choice]}
    />
  );
}

export function AttentionNote({ doc, token, choice }: { doc: ExplainDoc; token: number; choice: string }) {
  const one = doc.transcript.tokens[token];
  if (!one) return null;
  const heads = doc.alignment.heads.map(([layer, head]) => `${layer}.${head}`).join(", ");
  return (
    <p class="note">
      Cross-attention onto the sound while <Quoted text={one.text} /> was written,{" "}
      {choice === MEAN ? <>mean of the alignment heads (layer.head) {heads}</> : <>of head {choice} (layer.head)</>}. Word and
      token times come from the alignment heads{choice === MEAN ? "" : ` ${heads}`}. Attention is not proof of cause.
    </p>
  );
}
