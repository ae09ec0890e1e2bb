/** How much the chosen token depends on each block and each head. */

import { useId, useMemo, useState } from "preact/hooks";
import type { Component, ExplainDoc } from "../contract.ts";
import { type Arranged, Changes, heads, type Part, type Stack, wholeComponents } from "../model/ablation.ts";
import { type Change, spellComponent } from "../model/experiment.ts";
import { change } from "../model/numbers.ts";
import { Panel, type PanelProps, Quoted } from "./common.tsx";
import { type ExperimentHandle, useExperiment } from "./experiment.tsx";
import { type Cell, Grid, type GridRow, tintStyle } from "./grid.tsx";

const NAMES: Record<Part, string> = {
  self_attn: "self-attention",
  cross_attn: "cross-attention",
  mlp: "MLP",
  attn: "self-attention",
};

export function AblationPanel({ doc, token }: PanelProps) {
  const changes = useMemo(() => new Changes(doc.ablation), [doc]);
  const known = token >= 0 && doc.ablation.components.length > 0;
  return (
    <Panel
      name="ablation"
      title="What the token depends on"
      lead="Each block and each head is zeroed in turn while the decoder is given the written tokens. The number is how much the token's log-probability changes, in nats."
    >
      {known ? <Measurements doc={doc} token={token} changes={changes} /> : <p>Nothing was measured.</p>}
    </Panel>
  );
}

interface Props {
  doc: ExplainDoc;
  token: number;
  changes: Changes;
  minus: boolean; // the mean of the control is taken off heads
}

function Measurements(props: Omit<Props, "minus">) {
  const [minus, setMinus] = useState(false);
  const compared = props.doc.ablation.control_change !== undefined;
  return (
    <>
      <Legend reach={props.changes.reach(props.token)} compared={compared} />
      {compared && (
        <label class="choice">
          <input type="checkbox" checked={minus} onChange={(event) => setMinus(event.currentTarget.checked)} /> Subtract the
          control from heads
        </label>
      )}
      <div class={props.doc.model.heads > 6 ? "stacks wide" : "stacks"}>
        <OfStack {...props} minus={minus} stack="decoder" />
        <OfStack {...props} minus={minus} stack="encoder" />
      </div>
      <Strongest {...props} />
    </>
  );
}

function Legend({ reach, compared }: { reach: number; compared: boolean }) {
  return (
    <p class="legend" data-testid="ablation-legend">
      <span>less probable without it, {change(-reach)}</span>
      <span class="ramp both" aria-hidden="true" />
      <span>{change(reach)} nats, more probable without it</span>
      {compared && (
        <>
          <span class="meaning">
            <span class="swatch marked" aria-hidden="true" /> a head that changes more than the control: random subspaces of its
            size, taken out of what its block writes
          </span>
        </>
      )}
      <span class="meaning">
        <span class="swatch taken" aria-hidden="true" /> in the list of changes
      </span>
      <span class="hint">The scale ends at this token's largest change.</span>
    </p>
  );
}

function OfStack({ doc, token, changes, stack, minus }: Props & { stack: Stack }) {
  const found = useMemo(
    () => ({ whole: wholeComponents(doc.ablation, stack), heads: heads(doc.ablation, stack) }),
    [doc, stack],
  );
  const experiment = useExperiment();
  if (found.whole.layers.length + found.heads.length === 0) return null;
  const rows = (arranged: Arranged) => gridRows(arranged, changes, token, minus, experiment);
  return (
    <div class="stack">
      <h3>{stack === "encoder" ? "Encoder" : "Decoder"}</h3>
      {found.whole.layers.length > 0 && (
        <div>
          <h4>Whole blocks</h4>
          <Grid
            narrow
            label={`${stack}, layers by whole blocks`}
            scale="change"
            corner="layer"
            columns={found.whole.parts.map((part) => NAMES[part])}
            rows={rows(found.whole)}
          />
        </div>
      )}
      {found.heads.map((arranged) => {
        const name = NAMES[arranged.parts[0] as Part];
        return (
          <div key={name}>
            <h4>Heads of {name}</h4>
            <Grid
              narrow
              label={`${stack}, layers by heads of ${name}`}
              scale="change"
              corner="layer"
              columns={arranged.columns}
              rows={rows(arranged)}
            />
          </div>
        );
      })}
    </div>
  );
}

function gridRows(
  arranged: Arranged,
  changes: Changes,
  token: number,
  minus: boolean,
  experiment: ExperimentHandle | null,
): GridRow[] {
  const reach = changes.reach(token);
  return arranged.layers.map((layer) => ({
    head: layer,
    cells: arranged.columns.map((column) => {
      const found = arranged.cell(layer, column);
      if (!found) return undefined;
      const control = changes.control(found.component, token);
      const own = changes.at(found.row, token);
      const value = minus && control ? own - control.mean : own;
      const beside = control ? `; control ${change(control.mean)}${minus ? ", subtracted" : ""}` : "";
      const marked = control !== undefined && Math.abs(own) > control.most && Math.abs(own) >= 0.01;
      const told = `${spelledOut(found.component)}: ${change(value)} nats${beside}${marked ? "; more than the control" : ""}`;
      return {
        text: change(value),
        tint: Math.max(-1, Math.min(1, value / reach)),
        marked,
        told,
        ...offered(found.component, told, experiment),
      };
    }),
  }));
}

/** Choosing a cell puts its component into the list of changes, or takes it out again. */
function offered(component: Component, told: string, experiment: ExperimentHandle | null): Partial<Cell> {
  if (!experiment) return {};
  const zeroed: Change = { kind: "zero", text: spellComponent(component) };
  const taken = experiment.has(zeroed);
  return {
    taken,
    told: `${told}; ${taken ? "in the list of changes" : "choose it to zero it below"}`,
    press: () => (taken ? experiment.remove([zeroed]) : experiment.add([zeroed])),
  };
}

function spelledOut({ stack, layer, part, head }: Component): string {
  return `${stack} layer ${layer}, ${NAMES[part]}${head === undefined ? "" : `, head ${head}`}`;
}

function Strongest({ doc, token, changes }: Omit<Props, "minus">) {
  const strongest = useMemo(() => changes.strongest(10), [changes]);
  const reach = changes.reach(token);
  const name = useId();
  return (
    <div class="scroll">
      <h3 id={name}>The ten that matter most over all tokens</h3>
      <p class="note">By mean size of the change, in nats.</p>
      <table class="strongest" aria-labelledby={name}>
        <thead>
          <tr>
            <th scope="col">component</th>
            <th scope="col">this token</th>
            <th scope="col">mean of all</th>
            <th scope="col">hit hardest</th>
          </tr>
        </thead>
        <tbody>
          {strongest.map(({ component, row }) => {
            const { mean, worst } = changes.overall(row);
            const here = changes.at(row, token);
            return (
              <tr key={row}>
                <th scope="row" title={component.id}>
                  <bdi>{component.label}</bdi>
                </th>
                <td class={here < 0 ? "number falls" : "number change"} style={tintStyle(here / reach)}>
                  {change(here)}
                </td>
                <td class="number">{change(mean)}</td>
                <td>
                  {worst} <Quoted text={doc.transcript.tokens[worst]?.text ?? ""} />{" "}
                  <small>{change(changes.at(row, worst))}</small>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
