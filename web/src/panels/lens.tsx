/** The logit lens: what each layer would have written, for all tokens and for the chosen one. */

import "../css/lens.css";
import { useMemo, useState } from "preact/hooks";
import type { LensLayer, LensToken, LogitLens } from "../contract.ts";
import { addressWith, oneInAddress } from "../model/address.ts";
import { layersOf, type LensMeasure, MEASURES, measured, mostEntropy, type ReadToken, tintOf } from "../model/lens.ts";
import { probability, shortened, visible } from "../model/numbers.ts";
import { Panel, type PanelProps, Quoted, useAddress } from "./common.tsx";
import { Figure } from "./figure.tsx";
import { Grid, type GridRow, tintStyle } from "./grid.tsx";
import { Pin, type Pins, Trajectory, usePins } from "./lens-trajectory.tsx";

export interface LensProps {
  lens: LogitLens;
  tokens: ReadToken[];
  token: number; // the chosen one, -1 without tokens
  select: (token: number) => void;
}

/** The panel of a page about an explained clip. */
export function LogitLensPanel({ doc, token, select }: PanelProps) {
  return <LensPanel lens={doc.logit_lens} tokens={doc.transcript.tokens} token={token} select={select} />;
}

export function LensPanel(props: LensProps) {
  const read = props.lens.tokens[props.token];
  const pins = usePins();
  const named = () => oneInAddress(location.hash, "lens", MEASURES);
  const [by, setBy] = useState(named);
  useAddress(() => setBy(named()));
  const change = (next: LensMeasure) => {
    setBy(next);
    location.hash = addressWith(location.hash, { lens: next === "probability" ? undefined : next });
  };
  return (
    <Panel
      name="logit-lens"
      title="Logit lens"
      lead="Each layer read as if it were the last one. A token is settled at the layer from which on it stays on top. Probabilities are among all tokens of the vocabulary."
    >
      {read ? (
        <>
          <Overview {...props} by={by} change={change} />
          <OfToken read={read} token={props.tokens[props.token] as ReadToken} pins={pins} />
          <Trajectory {...props} by={by} pins={pins} />
        </>
      ) : (
        <p>No token was written.</p>
      )}
    </Panel>
  );
}

const TOLD: Record<LensMeasure, string> = {
  probability: "the probability of the written token",
  rank: "the rank of the written token, 0 being the most probable",
  entropy: "the entropy of the layer's distribution, in nats",
};

interface OverviewProps extends LensProps {
  by: LensMeasure;
  change: (by: LensMeasure) => void;
}

function Overview({ lens, tokens, token, select, by, change }: OverviewProps) {
  const rows = useMemo(() => overviewRows(lens, tokens, by), [lens, tokens, by]);
  const columns = useMemo(
    () =>
      tokens.map((one) => (
        <bdi title={one.after === undefined ? one.text : `after ${visible(shortened(one.after, 40))}`}>{visible(shortened(one.text, 40))}</bdi>
      )),
    [tokens],
  );
  return (
    <>
      <fieldset class="switch">
        <legend>Colour</legend>
        {MEASURES.map((name) => (
          <label key={name}>
            <input type="radio" name="lens-measure" checked={by === name} onChange={() => change(name)} />
            {name}
          </label>
        ))}
      </fieldset>
      <Figure name="logit-lens" title="Logit lens" about={`Layers by tokens; each cell names the layer's most probable token, its colour is ${TOLD[by]}.`}>
        <LensLegend by={by} most={mostEntropy(lens)} />
        <Grid tokens label="Logit lens, layers by tokens" scale="amount" corner="layer" columns={columns} rows={rows} current={token} pick={select} />
      </Figure>
    </>
  );
}

function LensLegend({ by, most }: { by: LensMeasure; most: number }) {
  const ends = { probability: ["p of the written token: 0", "1"], rank: ["rank of the written token: 1,000 and worse", "0, on top"], entropy: ["entropy: 0", `${most.toFixed(1)} nats`] }[by];
  return (
    <p class="legend">
      <span>{ends[0]}</span>
      <span class="ramp amount" aria-hidden="true" />
      <span>{ends[1]}</span>
      <span class="swatch marked" aria-hidden="true" />
      <span>settled here</span>
      <span class="hint">Each cell names the layer's most probable token.</span>
    </p>
  );
}

function overviewRows(lens: LogitLens, tokens: ReadToken[], by: LensMeasure): GridRow[] {
  const most = mostEntropy(lens);
  return layersOf(lens).map((number) => ({
    head: number,
    cells: lens.tokens.map((token) => {
      const layer = token.layers.find((one) => one.layer === number);
      if (!layer) return undefined;
      const marked = token.saturation_layer === number;
      return {
        text: visible(shortened(layer.top[0]?.text ?? "", 40)),
        tint: tintOf(layer, by, most),
        marked,
        told: spelledOut(layer, token, tokens[token.index]?.text ?? "", marked),
      };
    }),
  }));
}

/** One cell in words, with its best candidates. */
function spelledOut(layer: LensLayer, token: LensToken, text: string, marked: boolean): string {
  const best = layer.top.map((one) => `${visible(shortened(one.text, 24))} ${probability(one.p)}`).join(", ");
  const written = visible(shortened(text, 40));
  const facts = `p of the written token ${measured(layer, "probability")}, rank ${layer.rank_final}, entropy ${measured(layer, "entropy")}`;
  return `layer ${layer.layer}, token ${token.index} ${written}: reads ${best}; ${facts}${marked ? ", settled" : ""}`;
}

function OfToken({ read, token, pins }: { read: LensToken; token: ReadToken; pins: Pins }) {
  const width = Math.max(0, ...read.layers.map((layer) => layer.top.length));
  return (
    <Figure name="lens-of-token" title={`Layers reading token ${token.index}, “${visible(shortened(token.text, 40))}”`} about="The most probable tokens of each layer with their probabilities; colour is probability.">
      <div class="scroll" tabIndex={0} role="group" aria-label="Readings of the chosen token; scrolls when it is wide">
        <table class="readings" data-testid="lens-of-token">
          <caption>
            Layers reading token {token.index}, <Quoted text={token.text} />
            {token.after !== undefined && (
              <>
                {" "}
                after <Quoted text={token.after} />
              </>
            )}
          </caption>
          <thead>
            <tr>
              <th scope="col">layer</th>
              {Array.from({ length: width }, (_, i) => (
                <th scope="col" key={i}>
                  {i === 0 ? "most probable" : `${i + 1}.`}
                </th>
              ))}
              <th scope="col">p written</th>
              <th scope="col">rank</th>
              <th scope="col">entropy</th>
            </tr>
          </thead>
          <tbody>
            {read.layers.toReversed().map((layer) => (
              <Reading key={layer.layer} layer={layer} width={width} id={token.id} settled={read.saturation_layer} pins={pins} />
            ))}
          </tbody>
        </table>
      </div>
    </Figure>
  );
}

interface ReadingProps {
  layer: LensLayer;
  width: number;
  id: number;
  settled: number | undefined;
  pins: Pins;
}

function Reading({ layer, width, id, settled, pins }: ReadingProps) {
  return (
    <tr class={layer.layer === settled ? "settled" : ""}>
      <th scope="row">
        {layer.layer}
        {layer.layer === settled && <span class="flag">settled</span>}
      </th>
      {Array.from({ length: width }, (_, i) => {
        const one = layer.top[i];
        return one ? (
          <td key={i} class={one.id === id ? "amount written" : "amount"} style={tintStyle(one.p)} title={one.text}>
            <Pin candidate={one} pins={pins} written={one.id === id} />
          </td>
        ) : (
          <td key={i} />
        );
      })}
      <td class="number">{probability(layer.p_final)}</td>
      <td class="number">{layer.rank_final}</td>
      <td class="number">{layer.entropy.toFixed(2)}</td>
    </tr>
  );
}
