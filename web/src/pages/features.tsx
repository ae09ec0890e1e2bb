/** Features of a dictionary: a list, and of the chosen one its strongest moments with their sound. */

import { useEffect, useMemo, useState } from "preact/hooks";
import type { FeatureInfo, FeaturesDoc } from "../contract.ts";
import { called, chosenInHash, found, hashOfFeature } from "../model/features.ts";
import { Foot } from "../panels/about.tsx";
import { Figure } from "../panels/figure.tsx";
import { shortened } from "../model/numbers.ts";
import { Histogram, Moments, Tokens } from "../panels/feature.tsx";

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
      <Foot doc={doc} />
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
      <Moments resources={doc.resources} feature={feature} />
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
