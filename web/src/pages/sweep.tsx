/** A sweep over components: grids beside their control, and what became of every item. */

import "../css/sweep.css";
import { useMemo, useState } from "preact/hooks";
import type { SweepDoc } from "../contract.ts";
import { addressWith, inAddress, indexInAddress } from "../model/address.ts";
import { controlOf, measured, reach, shown, told, type View } from "../model/sweep.ts";
import { shortened, visible } from "../model/numbers.ts";
import { Foot, Head } from "../panels/about.tsx";
import { Panel, useAddress } from "../panels/common.tsx";
import { Figure } from "../panels/figure.tsx";
import { Grid, type GridRow } from "../panels/grid.tsx";
import { CellDetails } from "../panels/sweep-cell.tsx";
import { SweepTable } from "../panels/sweep-table.tsx";

export function SweepPage({ doc }: { doc: SweepDoc }) {
  const viewed = (): View => ({
    measure: Math.max(doc.measures.findIndex((one) => one.name === inAddress(location.hash, "measure")), 0),
    less: inAddress(location.hash, "control") !== "kept",
    item: indexInAddress(location.hash, "item", doc.items.length),
  });
  const named = () => indexInAddress(location.hash, "cell", doc.cells.length);
  const [view, setView] = useState(viewed);
  const [chosen, setChosen] = useState(named);
  useAddress(() => {
    setView(viewed());
    setChosen(named());
  });
  const change = (next: View) => {
    setView(next);
    const measure = next.measure === 0 ? undefined : doc.measures[next.measure]?.name;
    location.hash = addressWith(location.hash, { measure, control: next.less ? undefined : "kept", item: next.item?.toString() });
  };
  const choose = (index: number) => {
    setChosen(index);
    location.hash = addressWith(location.hash, { cell: String(index) });
  };
  const parts = { doc, view, chosen, choose };
  return (
    <main data-cell={chosen}>
      <Head doc={doc} headline={<bdi>{shortened(doc.headline, 300)}</bdi>}>
        <bdi>{shortened(doc.about, 400)}</bdi>
      </Head>
      {doc.cells.length === 0 ? (
        <p>Nothing was patched.</p>
      ) : (
        <>
          <Grids {...parts} change={change} />
          <CellDetails doc={doc} cell={chosen === undefined ? undefined : doc.cells[chosen]} measure={view.measure} />
          <SweepTable {...parts} />
        </>
      )}
      <Prices doc={doc} />
      <Foot doc={doc}>
        <li>Layers, heads and positions are counted from 0.</li>
      </Foot>
    </main>
  );
}

interface Parts {
  doc: SweepDoc;
  view: View;
  chosen: number | undefined;
  choose: (index: number) => void;
}

function Grids({ doc, view, chosen, choose, change }: Parts & { change: (view: View) => void }) {
  const measure = doc.measures[view.measure]!;
  const controlled = doc.cells.some((cell) => cell.values[view.measure]?.random !== undefined);
  const less = view.less && controlled && view.item === undefined;
  const item = view.item === undefined ? undefined : doc.items[view.item];
  const of = item ? `${doc.items_name} ${view.item}` : `${Math.max(0, ...doc.cells.map((cell) => cell.values[view.measure]?.n ?? 0))} ${doc.items_name}s`;
  return (
    <Panel
      name="sweep"
      title="Components"
      lead={
        <>
          Each cell is one component, patched alone. {controlled && <>The control: {measure.random}. </>}A cell is framed where {measure.stands_out}; the others are muted.
        </>
      }
    >
      <div class="sweep-controls">
        {doc.measures.length > 1 && (
          <fieldset class="switch">
            <legend>Show</legend>
            {doc.measures.map((one, i) => (
              <label key={i}>
                <input type="radio" name="measure" checked={view.measure === i} onChange={() => change({ ...view, measure: i })} />
                <bdi>{shortened(one.title, 60)}</bdi>
              </label>
            ))}
          </fieldset>
        )}
        {controlled && (
          <label class="check">
            <input type="checkbox" checked={less} disabled={view.item !== undefined} onChange={() => change({ ...view, less: !view.less })} />
            minus the control
          </label>
        )}
        {doc.items.length > 0 && (
          <label class="check">
            Of{" "}
            <select value={view.item ?? ""} onChange={(event) => change({ ...view, item: event.currentTarget.value === "" ? undefined : Number(event.currentTarget.value) })}>
              <option value="">all {doc.items_name}s</option>
              {doc.items.slice(0, 500).map((one, i) => (
                <option key={i} value={i}>
                  {`${i}: ${visible(shortened(one.before || one.name, 50))}`}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      <Figure
        name={`sweep-${measure.name}`}
        title={shortened(doc.title, 160)}
        about={`${measure.title}${less ? `, less what ${controlOf(measure)} do` : ""}; ${of}. Framed: ${measure.stands_out}.`}
      >
        <ScaleLegend unit={measure.unit} title={measure.title} most={reach(doc, { ...view, less })} less={less} />
        <div class="sweep-grids">
          {doc.grids.map((_, g) => (
            <OneGrid key={g} doc={doc} view={{ ...view, less }} chosen={chosen} choose={choose} grid={g} />
          ))}
        </div>
      </Figure>
    </Panel>
  );
}

function ScaleLegend({ unit, title, most, less }: { unit: string; title: string; most: number; less: boolean }) {
  const signed = less || unit !== "share";
  return (
    <p class="legend" data-testid="sweep-legend">
      {signed && <span>{told(-most, unit, true)}</span>}
      <span class={signed ? "ramp both" : "ramp change-ramp"} aria-hidden="true" />
      <span>
        {told(most, unit, signed)} <bdi>{shortened(title, 60)}</bdi>
        {less && <strong> minus the control</strong>}
      </span>
      <span class="swatch marked" aria-hidden="true" />
      <span>stands out</span>
    </p>
  );
}

function OneGrid({ doc, view, chosen, choose, grid: g }: Parts & { grid: number }) {
  const grid = doc.grids[g]!;
  const at = useMemo(() => new Map(doc.cells.map((cell, i) => [`${cell.grid},${cell.row},${cell.column}`, i])), [doc]);
  const rows = grid.rows.map((_, i) => grid.rows.length - 1 - i); // the last layer on top
  const most = reach(doc, view);
  const measure = doc.measures[view.measure]!;
  const { unit } = measure;
  const cells: GridRow[] = rows.map((row) => ({
    head: <bdi>{shortened(grid.rows[row]!, 24)}</bdi>,
    cells: grid.columns.map((_, column) => {
      const index = at.get(`${g},${row},${column}`);
      if (index === undefined) return undefined;
      const cell = doc.cells[index]!;
      const { value, muted } = shown(cell, view, doc);
      const whole = cell.values[view.measure]!;
      const own = measured(whole);
      if (own === undefined) return { text: "", tint: 0, muted: true, told: `${cell.label}: not patched` };
      const text = told(value, unit, view.less || unit !== "share");
      return {
        text,
        tint: Math.max(-1, Math.min((value ?? 0) / most, 1)),
        marked: whole.stands_out && view.item === undefined,
        muted,
        told:
          `${cell.label}: ${told(own, unit, false)}` +
          (whole.low !== undefined && whole.high !== undefined ? ` (${told(whole.low, unit, false)} to ${told(whole.high, unit, false)})` : "") +
          (whole.random !== undefined ? `, ${controlOf(measure)} ${told(whole.random, unit, false)}` : "") +
          (view.item !== undefined ? `; here ${text}` : whole.stands_out ? ", stands out" : `, not told apart from ${controlOf(measure)}`),
      };
    }),
  }));
  const own = chosen === undefined ? undefined : doc.cells[chosen];
  const place: [number, number] | undefined = own?.grid === g ? [rows.indexOf(own.row), own.column] : undefined;
  return (
    <div class="sweep-grid">
      <h3>
        <bdi>{shortened(grid.title, 60)}</bdi>
      </h3>
      <Grid
        narrow
        label={`${shortened(grid.title, 60)}, layers by ${grid.columns_name || "block"}s`}
        scale="change"
        corner={grid.columns_name ? `layer \\ ${shortened(grid.columns_name, 20)}` : "layer"}
        columns={grid.columns.map((name) => (
          <bdi title={name}>{visible(shortened(name, 16))}</bdi>
        ))}
        rows={cells}
        chosen={place}
        pick={(column, row) => {
          const index = at.get(`${g},${rows[row]},${column}`);
          if (index !== undefined) choose(index);
        }}
      />
    </div>
  );
}

function Prices({ doc }: { doc: SweepDoc }) {
  if (doc.prices.length === 0) return null;
  return (
    <Panel name="prices" title="What it costs" lead={<>The patch on other recordings, before and after. {doc.price_note}</>}>
      {doc.prices.map((price, i) => (
        <div class="scroll" key={i} tabIndex={0} role="group" aria-label={`Price of ${shortened(price.label, 60)}`}>
          <table class="strongest">
            <caption>
              <bdi>{shortened(price.label, 80)}</bdi>
            </caption>
            <thead>
              <tr>
                <th scope="col">measure</th>
                <th scope="col">before</th>
                <th scope="col">after</th>
              </tr>
            </thead>
            <tbody>
              {price.rows.map(([name, before, after], r) => (
                <tr key={r}>
                  <th scope="row">
                    <bdi>{name}</bdi>
                  </th>
                  <td>{before}</td>
                  <td>{after}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ))}
    </Panel>
  );
}
