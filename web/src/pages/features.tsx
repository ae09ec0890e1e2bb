/** Features of a dictionary: a list, and of the chosen one its strongest moments with their sound. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { FeatureInfo, FeatureMoment, FeaturesDoc } from "../contract.ts";
import { resourceUrl } from "../model/resources.ts";
import { unpack } from "../model/arrays.ts";
import { called, chosenInHash, found, hashOfFeature } from "../model/features.ts";
import { Figure } from "../panels/figure.tsx";
import { flowing, shortened, visible } from "../model/numbers.ts";

export function FeaturesPage({ doc }: { doc: FeaturesDoc }) {
  const [at, setAt] = useState(() => chosenInHash(doc, location.hash) ?? 0);
  const [wanted, setWanted] = useState("");
  const shown = useMemo(() => found(doc, wanted), [doc, wanted]);
  useEffect(() => {
    const follow = () => setAt((now) => chosenInHash(doc, location.hash) ?? now);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [doc]);
  const select = (index: number) => {
    setAt(index);
    location.hash = hashOfFeature(doc.features[index] as FeatureInfo);
  };
  const feature = doc.features[at];
  return (
    <main class="features" data-feature={at}>
      <header>
        <p class="title">
          <bdi title={doc.title}>{shortened(doc.title, 200)}</bdi>
        </p>
        <p class="lead">
          {doc.features.length} of {doc.features_in_all.toLocaleString("en")} features, over {doc.vectors.toLocaleString("en")} places in{" "}
          {doc.items.toLocaleString("en")} recordings or texts of <bdi>{shortened(doc.corpus, 120)}</bdi>. Layers and features are
          counted from 0.
        </p>
      </header>
      <div class="columns">
        <nav aria-label="Features">
          <label class="search">
            Search <input type="search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
          </label>
          <p class="note">
            {shown.length} of {doc.features.length} shown
          </p>
          <ul class="feature-list">
            {shown.map((index) => (
              <li key={index}>
                <button type="button" data-index={index} aria-current={index === at} onClick={() => select(index)}>
                  <span class="place">
                    L{doc.features[index]!.layer} {doc.features[index]!.feature}
                  </span>{" "}
                  <bdi>{shortened(called(doc.features[index]!), 80)}</bdi>
                </button>
              </li>
            ))}
          </ul>
        </nav>
        {feature ? (
          <Figure name={`feature-${feature.layer}-${feature.feature}`} title={shortened(called(feature), 120)} about={`Layer ${feature.layer}, feature ${feature.feature}: its strongest moments and what it writes.`}>
            <FeaturePanel doc={doc} feature={feature} select={select} key={at} />
          </Figure>
        ) : (
          <p>This document holds no feature.</p>
        )}
      </div>
      <footer>
        <h2>Reading this page</h2>
        <ul>
          {doc.notes.map((note, i) => (
            <li key={i}>
              <bdi>{note}</bdi>
            </li>
          ))}
        </ul>
      </footer>
    </main>
  );
}

interface PanelProps {
  doc: FeaturesDoc;
  feature: FeatureInfo;
  select: (index: number) => void;
}

function FeaturePanel({ doc, feature, select }: PanelProps) {
  return (
    <section class="feature" data-testid="feature" aria-live="polite">
      <h1>
        <bdi>{shortened(called(feature), 160)}</bdi>
        {feature.named !== undefined && (
          <span class="least">
            From statistics: <bdi>{shortened(feature.label, 120)}</bdi>
          </span>
        )}
      </h1>
      <p class="lead">
        Layer {feature.layer}, feature {feature.feature}: on at {(100 * feature.density).toPrecision(2)} % of the places, {feature.mean.toPrecision(3)}{" "}
        on average there, {feature.max.toPrecision(3)} at most.
      </p>
      <Histogram feature={feature} />
      <Moments doc={doc} feature={feature} />
      <Tokens title="Writes" tokens={feature.promotes} />
      <Tokens title="Writes less" tokens={feature.suppresses} />
      {feature.areas.length > 0 && (
        <table class="areas">
          <caption>What its peaks tell of recordings</caption>
          <thead>
            <tr>
              <th scope="col">label</th>
              <th scope="col">AUC</th>
              <th scope="col">shuffled</th>
              <th scope="col">recordings</th>
            </tr>
          </thead>
          <tbody>
            {feature.areas.map((area, i) => (
              <tr key={i}>
                <th scope="row">
                  <bdi>{shortened(`${area.label} ${area.value}`, 60)}</bdi>
                </th>
                <td class="number">{area.auc.toFixed(2)}</td>
                <td class="number">{area.shuffled.toFixed(2)}</td>
                <td class="number">{area.n}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <p class="near">
        Writes most like{" "}
        {feature.neighbours.map(({ feature: other, cosine }, i) => {
          const index = doc.features.findIndex((one) => one.layer === feature.layer && one.feature === other);
          const text = `${other} (${cosine.toFixed(2)})`;
          return (
            <span key={i}>
              {i > 0 && ", "}
              {index >= 0 ? (
                <button type="button" class="link" onClick={() => select(index)}>
                  {text}
                </button>
              ) : (
                text
              )}
            </span>
          );
        })}
      </p>
    </section>
  );
}

function Histogram({ feature }: { feature: FeatureInfo }) {
  const most = Math.max(1, ...feature.histogram);
  return (
    <figure class="histogram">
      <svg viewBox={`0 0 ${feature.histogram.length} 10`} preserveAspectRatio="none" aria-hidden="true">
        {feature.histogram.map((count, i) => (
          <rect key={i} x={i + 0.08} width={0.84} y={10 - (10 * count) / most} height={(10 * count) / most} />
        ))}
      </svg>
      <figcaption class="note">
        Greatest activation of each recording, 0 to {feature.histogram_top.toPrecision(3)}; {feature.silent} recordings in which it is never on.
      </figcaption>
    </figure>
  );
}

function Tokens({ title, tokens }: { title: string; tokens: FeatureInfo["promotes"] }) {
  if (tokens.length === 0) return null;
  return (
    <p class="writes">
      {title}{" "}
      {tokens.map(({ text, weight }, i) => (
        <q key={i} class="quoted" title={`${weight} per unit of activation`}>
          <bdi>{visible(text)}</bdi>
        </q>
      ))}
    </p>
  );
}

/** All snippets share one player: one sound at a time. */
function Moments({ doc, feature }: { doc: FeaturesDoc; feature: FeatureInfo }) {
  const audio = useRef<HTMLAudioElement>(null);
  const [playing, setPlaying] = useState(-1);
  const urls = useRef(new Map<string, string>());
  useEffect(() => () => urls.current.forEach((url) => URL.revokeObjectURL(url)), []);
  const play = (index: number, moment: FeatureMoment) => {
    const element = audio.current;
    if (!element || moment.snippet === undefined) return;
    if (playing === index) {
      element.pause();
      setPlaying(-1);
      return;
    }
    let url = urls.current.get(moment.snippet);
    if (!url) {
      url = resourceUrl(doc, moment.snippet);
      if (!url) return;
      urls.current.set(moment.snippet, url);
    }
    element.src = url;
    setPlaying(index);
    void element.play().catch(() => setPlaying(-1));
  };
  if (feature.moments.length === 0) return <p>It was never on.</p>;
  return (
    <>
      <h2>Strongest moments</h2>
      <audio ref={audio} onEnded={() => setPlaying(-1)} />
      <ol class="moments">
        {feature.moments.map((moment, i) => (
          <li key={i} class="moment">
            {moment.snippet !== undefined && (
              <button type="button" class="play" aria-pressed={playing === i} onClick={() => play(i, moment)}>
                {playing === i ? "Stop" : "Play"}
              </button>
            )}
            <Wave moment={moment} />
            <p class="said">
              <bdi>{shortened(flowing(moment.before), 60)}</bdi>
              <mark>
                <bdi>{shortened(visible(moment.at), 60) || "·"}</bdi>
              </mark>
              <bdi>{shortened(flowing(moment.after), 40)}</bdi>
              {moment.phoneme !== undefined && (
                <span class="phoneme">
                  /<bdi>{shortened(moment.phoneme, 8)}</bdi>/
                </span>
              )}
              <span class="where">
                {moment.activation.toPrecision(3)}
                {moment.start !== undefined && ` · ${moment.start.toFixed(2)} s`}
                {moment.recording !== undefined && (
                  <>
                    {" · "}
                    <bdi title={moment.recording}>{shortened(moment.recording, 40)}</bdi>
                  </>
                )}
              </span>
            </p>
          </li>
        ))}
      </ol>
    </>
  );
}

/** The snippet's waveform with the moment marked. */
function Wave({ moment }: { moment: FeatureMoment }) {
  const path = useMemo(() => {
    if (!moment.wave) return "";
    const values = unpack(moment.wave);
    const bins = values.length / 2;
    const loudest = Math.max(1e-6, ...values.map(Math.abs));
    const y = (value: number) => 10 - (9 * value) / loudest;
    let text = "";
    for (let i = 0; i < bins; i++) text += `M${i + 0.5} ${y(values[i] ?? 0)}V${y(values[bins + i] ?? 0)}`;
    return text;
  }, [moment]);
  const { snippet_start: from, snippet_seconds: length, start, end } = moment;
  if (!path || from === undefined || !length || start === undefined || end === undefined) return null;
  const bins = (moment.wave?.shape[1] ?? 1) as number;
  const left = ((start - from) / length) * bins;
  const width = Math.max(1, ((end - start) / length) * bins);
  return (
    <svg class="wave" viewBox={`0 0 ${bins} 20`} preserveAspectRatio="none" aria-hidden="true">
      <rect x={left} width={width} y={0} height={20} />
      <path d={path} />
    </svg>
  );
}
