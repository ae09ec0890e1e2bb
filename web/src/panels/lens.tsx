/** The logit lens: what each decoder layer would have written, for all tokens and for the chosen one. */

import { useMemo } from "preact/hooks";
import type { LensLayer, LensToken, TokenInfo } from "../contract.ts";
import { probability, shortened, visible } from "../model/numbers.ts";
import { Panel, type PanelProps, Quoted } from "./common.tsx";
import { Figure } from "./figure.tsx";
import { Grid, type GridRow, tintStyle } from "./grid.tsx";

export function LogitLensPanel(props: PanelProps) {
  const lens = props.doc.logit_lens.tokens[props.token];
  return (
    <Panel
      name="logit-lens"
      title="Logit lens"
      lead="Each decoder layer read as if it were the last one. A token is settled at the layer from which on it stays on top."
    >
      {lens ? (
        <>
          <OfToken lens={lens} token={props.doc.transcript.tokens[props.token] as TokenInfo} />
          <Overview {...props} />
        </>
      ) : (
        <p>No token was written.</p>
      )}
    </Panel>
  );
}

function OfToken({ lens, token }: { lens: LensToken; token: TokenInfo }) {
  const width = Math.max(...lens.layers.map((layer) => layer.top.length));
  return (
    <div class="scroll">
      <table class="readings" data-testid="lens-of-token">
        <caption>
          Layers reading token {token.index}, <Quoted text={token.text} />
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
          {lens.layers.toReversed().map((layer) => (
            <Reading key={layer.layer} layer={layer} width={width} id={token.id} settled={lens.saturation_layer} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface ReadingProps {
  layer: LensLayer;
  width: number;
  id: number;
  settled: number | undefined;
}

function Reading({ layer, width, id, settled }: ReadingProps) {
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
            <bdi>{visible(one.text)}</bdi> <small>{probability(one.p)}</small>
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

function Overview({ doc, token, select }: PanelProps) {
  const { tokens } = doc.transcript;
  const rows = useMemo(() => overviewRows(doc.logit_lens.tokens, tokens), [doc]);
  const columns = useMemo(() => tokens.map((one) => <bdi title={one.text}>{visible(one.text)}</bdi>), [doc]);
  return (
    <>
      <h3>All tokens</h3>
      <p class="legend">
        <span>p of the written token: 0</span>
        <span class="ramp amount" aria-hidden="true" />
        <span>1</span>
        <span class="swatch marked" aria-hidden="true" />
        <span>settled here</span>
        <span class="hint">Each cell shows the layer's most probable token.</span>
      </p>
      <Figure
        name="logit-lens"
        title="Logit lens"
        about="Layers (rows) by tokens (columns); each cell names the layer's most probable token, its colour is the probability of the written one."
      >
        <Grid
          label="Logit lens, layers by tokens"
          scale="amount"
          corner="layer"
          columns={columns}
          rows={rows}
          current={token}
          pick={select}
        />
      </Figure>
    </>
  );
}

function overviewRows(lens: LensToken[], tokens: TokenInfo[]): GridRow[] {
  const layers = [...new Set(lens.flatMap((token) => token.layers.map((layer) => layer.layer)))].sort((a, b) => b - a);
  return layers.map((number) => ({
    head: number,
    cells: lens.map((token) => {
      const layer = token.layers.find((one) => one.layer === number);
      if (!layer) return undefined;
      const top = layer.top[0]?.text ?? "";
      const written = visible(shortened(tokens[token.index]?.text ?? "", 40));
      const marked = token.saturation_layer === number;
      return {
        text: visible(shortened(top, 40)),
        tint: layer.p_final,
        marked,
        told:
          `layer ${number}, token ${token.index} ${written}: reads ${visible(shortened(top, 40))}; ` +
          `p of the written token ${probability(layer.p_final)}, rank ${layer.rank_final}${marked ? ", settled" : ""}`,
      };
    }),
  }));
}
