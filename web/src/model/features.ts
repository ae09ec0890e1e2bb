/** Names, search and addresses of features. */

import type { FeatureInfo, FeaturesDoc } from "../contract.ts";

/** What a person called it, else what statistics say. */
export function called(feature: FeatureInfo): string {
  return feature.named ?? feature.label;
}

/** Indices of the features whose name, number, words or tokens hold the text. */
export function found(doc: FeaturesDoc, wanted: string): number[] {
  const text = wanted.trim().toLocaleLowerCase();
  const all = doc.features.map((_, i) => i);
  if (!text) return all;
  return all.filter((i) => searched(doc.features[i] as FeatureInfo).includes(text));
}

function searched(feature: FeatureInfo): string {
  const said = feature.moments.map((moment) => `${moment.at} ${moment.phoneme ?? ""}`);
  const written = feature.promotes.map((token) => token.text);
  return [`L${feature.layer} ${feature.feature}`, called(feature), feature.label, ...said, ...written].join(" ").toLocaleLowerCase();
}

export function hashOfFeature(feature: FeatureInfo): string {
  return `#feature=${feature.layer}.${feature.feature}`;
}

/** The index of the feature that an address names, if the document has it. */
export function chosenInHash(doc: FeaturesDoc, hash: string): number | undefined {
  const named = /^(\d{1,6})\.(\d{1,9})$/.exec(new URLSearchParams(hash.replace(/^#/, "")).get("feature") ?? "");
  if (!named) return undefined;
  const index = doc.features.findIndex((one) => one.layer === Number(named[1]) && one.feature === Number(named[2]));
  return index >= 0 ? index : undefined;
}
