import assert from "node:assert/strict";
import { test } from "node:test";
import type { FeatureInfo, FeaturesDoc } from "../src/contract.ts";
import { called, chosenInHash, found, hashOfFeature } from "../src/model/features.ts";

function feature(layer: number, index: number, label: string, at: string, named?: string): FeatureInfo {
  return {
    layer, feature: index, label, density: 0.1, mean: 1, max: 2, histogram: [], histogram_top: 1, silent: 0,
    promotes: [{ text: " Token", weight: 1 }], suppresses: [], areas: [], neighbours: [],
    moments: [{ activation: 1, before: "", at, after: "", phoneme: "ʃ" }],
    ...(named === undefined ? {} : { named }),
  };
}

const doc = { features: [feature(0, 3, "“cat”", "Cat"), feature(2, 3, "writes 'x'", "dog", "my DOG")] } as FeaturesDoc;

test("a person's name comes before the label", () => {
  assert.deepEqual(doc.features.map(called), ["“cat”", "my DOG"]);
});

test("search finds names, words, phonemes, tokens and numbers in any case", () => {
  assert.deepEqual(found(doc, ""), [0, 1]);
  assert.deepEqual(found(doc, " cat "), [0]);
  assert.deepEqual(found(doc, "my dog"), [1]);
  assert.deepEqual(found(doc, "ʃ"), [0, 1]);
  assert.deepEqual(found(doc, "token"), [0, 1]);
  assert.deepEqual(found(doc, "l2 3"), [1]);
  assert.deepEqual(found(doc, "nothing"), []);
});

test("an address names a feature of the document or none", () => {
  assert.equal(chosenInHash(doc, hashOfFeature(doc.features[1]!)), 1);
  for (const hash of ["", "#feature=9.9", "#feature=2", "#feature=2.3.4", "#feature=<b>.1", "#token=1"]) {
    assert.equal(chosenInHash(doc, hash), undefined);
  }
});
