/** Words and tokens at their times. */

import type { ExplainDoc, TokenInfo, WordInfo } from "../../contract.ts";
import { probability, shortened, visible } from "../../model/numbers.ts";
import type { Span, TimeAxis } from "../../model/time.ts";
import { tintStyle } from "../grid.tsx";

export type TimedWord = WordInfo & Span;
type TimedToken = TokenInfo & Span;

interface Props {
  doc: ExplainDoc;
  axis: TimeAxis;
  token: number;
}

export function Words({ doc, axis, token, choose }: Props & { choose: (word: TimedWord) => void }) {
  const words = doc.transcript.words.filter(isTimed);
  return (
    <div class="words" role="group" aria-label="Words; choosing one plays it">
      {words.map((word, i) => {
        const chosen = word.first_token <= token && token <= word.last_token;
        const left = axis.x(word.start);
        const room = axis.x(words[i + 2]?.start ?? axis.t1) - left; // every other word hangs lower
        return (
          <button
            key={i}
            type="button"
            class={chosen ? "word current" : "word"}
            aria-pressed={chosen}
            data-token={word.first_token}
            style={{
              left: `${left}px`,
              minWidth: `${Math.min(axis.x(word.end) - left, room)}px`,
              maxWidth: `${Math.max(room - 2, 4)}px`,
              ...tintStyle(1 - word.p),
            }}
            title={`${shortened(word.text.trim(), 200)}  ${word.start.toFixed(2)}–${word.end.toFixed(2)} s, p = ${probability(word.p)}`}
            onClick={() => choose(word)}
          >
            <bdi>{shortened(word.text.trim(), 80)}</bdi>
          </button>
        );
      })}
    </div>
  );
}

/** Tokens as a strip; their edges are where one ends and the next begins. */
export function Tokens({ doc, axis, token, select }: Props & { select: (token: number) => void }) {
  return (
    <div class="token-strip" aria-hidden="true">
      {doc.transcript.tokens.filter(isTimed).map((one: TimedToken) => (
        <span
          key={one.index}
          data-token={one.index}
          class={one.index === token ? "current" : ""}
          style={{ left: `${axis.x(one.start)}px`, width: `${Math.max(axis.x(one.end) - axis.x(one.start), 1)}px` }}
          onClick={() => select(one.index)}
        >
          <bdi>{visible(shortened(one.text, 24))}</bdi>
        </span>
      ))}
    </div>
  );
}

function isTimed<T extends { start?: number; end?: number }>(one: T): one is T & Span {
  return one.start !== undefined && one.end !== undefined;
}
