/** What else lies under the sound: the account of the chosen token, the monitor's risk, features of the encoder. */

import { useMemo } from "preact/hooks";
import type { ExplainDoc, FeatureRow } from "../../contract.ts";
import { featureColour } from "../../draw/palette.ts";
import { drawColumns, drawSigned, drawSteps, type Step } from "../../draw/rows.ts";
import { featureKey } from "../../linked.ts";
import type { AccountBook } from "../../model/accounts.ts";
import { extent, unpack } from "../../model/arrays.ts";
import { decimal, shortened, visible } from "../../model/numbers.ts";
import type { TimeAxis } from "../../model/time.ts";
import { Row } from "./row.tsx";

interface Props {
  doc: ExplainDoc;
  seen: TimeAxis;
  token: number;
}

export function AccountRow({ doc, seen, token, book }: Props & { book: AccountBook | undefined }) {
  const text = doc.transcript.tokens[token]?.text;
  if (!book || text === undefined) return null;
  return (
    <Row
      name="account"
      label={
        <>
          what the sound said for (up) and against (down) <bdi>{visible(shortened(text, 24))}</bdi>
        </>
      }
      height={64}
      seen={seen}
      draw={(surface) => drawSigned(surface, book.accounts.spans, book.spansOf(token))}
      keys={[book, token]}
    />
  );
}

export function RiskRow({ doc, seen }: Omit<Props, "token">) {
  const { risk } = doc;
  const steps = useMemo(() => riskSteps(doc), [doc]);
  if (!risk) return null;
  const highest = Math.max(0, ...risk.steps);
  return (
    <Row
      name="risk"
      label={`risk, highest ${highest.toFixed(2)}; dashed: alarm from ${risk.threshold.toFixed(2)} on`}
      height={48}
      seen={seen}
      draw={(surface) => drawSteps(surface, steps, risk.threshold)}
      keys={[doc]}
    />
  );
}

/** Each token's risk over its time; that of the end of the text over what is left of the axis. */
export function riskSteps(doc: ExplainDoc): Step[] {
  const { risk, transcript, audio } = doc;
  if (!risk) return [];
  return risk.steps.flatMap((value, i) => {
    const token = transcript.tokens[i];
    const start = token ? token.start : (transcript.tokens.at(-1)?.end ?? 0);
    const end = token ? token.end : audio.window_seconds;
    return start === undefined || end === undefined ? [] : [{ start, end, value, alarm: value >= risk.threshold }];
  });
}

/** Marks where the monitor rang. */
export function Alarms({ doc, axis }: { doc: ExplainDoc; axis: TimeAxis }) {
  const rung = riskSteps(doc).filter((step) => step.alarm);
  return (
    <>
      {rung.map(({ start, value }) => (
        <span key={start} class="axis-alarm" style={{ left: `${axis.x(Math.min(start, axis.t1 - 0.05))}px` }} title={`Alarm: risk ${value.toFixed(2)}`}>
          alarm
        </span>
      ))}
    </>
  );
}

export function FeatureRows({ doc, seen }: Omit<Props, "token">) {
  const rows = useMemo(() => doc.feature_rows.map((row) => ({ row, values: unpack(row.values) })), [doc]);
  return (
    <>
      {rows.map(({ row, values }) => {
        const [low, high] = extent(values);
        return (
          <Row
            key={`${row.layer}.${row.feature}`}
            name={`feature ${row.layer}.${row.feature}`}
            feature={featureKey("encoder", row.layer, row.feature)}
            label={
              <>
                {row.dictionary === "neurons" ? "neuron" : <>feature of <bdi>{shortened(row.dictionary, 40)}</bdi>,</>} {row.feature} of encoder layer {row.layer},{" "}
                {decimal(low, 1)} to {decimal(high, 1)}
                <Why row={row} doc={doc} />
              </>
            }
            height={54}
            seen={seen}
            draw={(surface) =>
              drawColumns(surface, values, row.column_seconds, Math.max(high, 1e-9), featureColour(surface.dark))
            }
            keys={[row]}
          />
        );
      })}
    </>
  );
}

function Why({ row, doc }: { row: FeatureRow; doc: ExplainDoc }) {
  const token = doc.transcript.tokens[row.token ?? -1];
  if (!token || row.share === undefined) return <>; asked for</>;
  return (
    <>
      ; {(100 * row.share).toFixed(0)} % of what its layer said for <bdi>{visible(shortened(token.text, 24))}</bdi>
    </>
  );
}
