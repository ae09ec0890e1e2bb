/** Curves over layers: scores with their intervals, and what they would be for another reason. */

import "../css/curve.css";
import { useState } from "preact/hooks";
import type { CurveDoc, CurvePanel, CurveSeries } from "../contract.ts";
import { addressWith, inAddress } from "../model/address.ts";
import { decimal, shortened } from "../model/numbers.ts";
import { Foot, Head } from "../panels/about.tsx";
import { Chart, DASHES, type Line } from "../panels/chart.tsx";
import { Panel, useAddress } from "../panels/common.tsx";
import { Figure } from "../panels/figure.tsx";
import { Legend } from "../panels/legend.tsx";
import { Shares } from "../panels/shares.tsx";

export function CurvePage({ doc }: { doc: CurveDoc }) {
  const named = () => new Set((inAddress(location.hash, "hidden") ?? "").split(",").filter((one) => /^\d{1,3}\.\d{1,3}$/.test(one)));
  const [hidden, setHidden] = useState(named);
  useAddress(() => setHidden(named()));
  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
    location.hash = addressWith(location.hash, { hidden: next.size ? [...next].join(",") : undefined });
  };
  return (
    <main>
      <Head doc={doc} headline={<bdi>{shortened(doc.headline, 400)}</bdi>}>
        <bdi>{shortened(doc.about, 400)}</bdi>
      </Head>
      {doc.panels.length === 0 && <p>This document holds no curve.</p>}
      {doc.panels.map((panel, i) => (
        <Curves key={i} panel={panel} at={i} hidden={hidden} toggle={toggle} />
      ))}
      <Foot doc={doc}>
        <li>Bands and brackets are 95 % intervals.</li>
      </Foot>
    </main>
  );
}

interface Props {
  panel: CurvePanel;
  at: number;
  hidden: Set<string>;
  toggle: (name: string) => void;
}

function Curves({ panel, at, hidden, toggle }: Props) {
  const styles = stylesOf(panel.series);
  const off = new Set(panel.series.map((_, i) => i).filter((i) => hidden.has(`${at}.${i}`)));
  const lines: Line[] = panel.series.map((series, i) => ({
    name: shortened(series.name, 60),
    points: series.points,
    colour: styles[i]!.colour,
    dash: styles[i]!.dash,
    thin: series.role === "control",
  }));
  const domain: [number, number] | undefined = panel.y_low !== undefined && panel.y_high !== undefined ? [panel.y_low, panel.y_high] : undefined;
  const title = shortened(panel.title, 120);
  return (
    <Panel name={`curve-${at}`} title={title} lead={<bdi>{shortened(panel.about, 300)}</bdi>}>
      <Figure name={`curve-${title}`} title={title} about={panel.about}>
        {panel.form === "shares" ? (
          <Shares panel={panel} />
        ) : (
          <>
            <Chart label={`${title}: ${panel.y_name} by layer`} lines={lines.filter((_, i) => !off.has(i))} xName={panel.x_name} yName={panel.y_name} domain={domain} height={320} />
            <Legend
              names={lines.map((line) => line.name)}
              colours={styles.map((style) => style.colour)}
              dashes={styles.map((style) => style.dash)}
              about={panel.series.map((series) => series.about)}
              hidden={off}
              toggle={(i) => toggle(`${at}.${i}`)}
            />
          </>
        )}
      </Figure>
      <Explained series={panel.series} />
      <Numbers panel={panel} title={title} />
    </Panel>
  );
}

/** Scores are solid and coloured in order; controls are dashed and begin with grey. */
function stylesOf(series: CurveSeries[]): { colour: number; dash: string | undefined }[] {
  let scores = 0;
  let controls = 0;
  return series.map((one) => {
    if (one.role === "score") {
      const colour = [0, 2, 3, 1][scores++ % 4] as number;
      return { colour, dash: undefined };
    }
    const place = controls++ % 4;
    return { colour: [4, 1, 3, 2][place] as number, dash: DASHES[[2, 1, 3, 4][place] as number] };
  });
}

function Explained({ series }: { series: CurveSeries[] }) {
  const told = series.filter((one) => one.about);
  if (told.length === 0) return null;
  return (
    <dl class="explained">
      {told.map((one, i) => (
        <div key={i}>
          <dt>
            <bdi>{shortened(one.name, 60)}</bdi>
          </dt>
          <dd>
            <bdi>{one.about}</bdi>
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Numbers({ panel, title }: { panel: CurvePanel; title: string }) {
  const layers = [...new Set(panel.series.flatMap((one) => one.points.map((point) => point.x)))].sort((a, b) => a - b);
  return (
    <details>
      <summary>All numbers</summary>
      <div class="scroll" tabIndex={0} role="group" aria-label={`Numbers of ${title}; scrolls when it is wide`}>
        <table class="numbers-table">
          <thead>
            <tr>
              <th scope="col">layer</th>
              {panel.series.map((one, i) => (
                <th scope="col" key={i}>
                  <bdi>{shortened(one.name, 40)}</bdi>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {layers.map((layer) => (
              <tr key={layer}>
                <th scope="row">{layer}</th>
                {panel.series.map((one, i) => {
                  const point = one.points.find((each) => each.x === layer);
                  return (
                    <td class="number" key={i}>
                      {point ? decimal(point.y) : "–"}
                      {point?.low !== undefined && point.high !== undefined && (
                        <small>
                          {" "}
                          {decimal(point.low)} to {decimal(point.high)}
                        </small>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
