import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { ExplainDoc, Intervention } from "../src/contract.ts";
import {
  type Change,
  changesOf,
  inWords,
  mayJoin,
  NOTHING,
  parametersOf,
  readChange,
  wantedInHash,
  withChange,
  without,
} from "../src/model/experiment.ts";
import { commandLine, explainLine, type Given, howOf, pythonLine } from "../src/model/lines.ts";
import { partners } from "../src/model/pairing.ts";
import { addressWith } from "../src/model/address.ts";

const zeroed = (text: string): Change => ({ kind: "zero", text });

test("the lines to copy are those that Python writes", () => {
  for (const known of JSON.parse(readFileSync("tests/spellings.json", "utf8"))) {
    const wanted: Intervention = { ...NOTHING, ...known.intervention };
    const given: Given = known.prompt === undefined ? { of: "recording", text: known.clip } : { of: "prompt", text: known.prompt };
    assert.equal(pythonLine(known.model, given, wanted, known.how), known.python);
    assert.equal(commandLine(known.model, given, wanted, known.how), known.command);
  }
});

test("the command that traces a token hears the clip as it was heard", () => {
  const how = howOf({ audio: { start: 12.5 }, settings: { language: "fr" } } as unknown as ExplainDoc);
  const line = explainLine("whisper-base", "it's.wav", 4, how);
  assert.equal(line, `otoscope explain 'it'"'"'s.wav' --model whisper-base --token 4 --offset 12.5 --language fr`);
});

test("a change is listed once, and of a feature the last word counts", () => {
  let wanted = withChange(withChange(NOTHING, zeroed("decoder_blocks.0.mlp")), zeroed("decoder_blocks.0.mlp"));
  assert.deepEqual(wanted.zero, ["decoder_blocks.0.mlp"]);
  for (const text of ["encoder:3:604=0", "encoder:3:604x2", "encoder:3:604=1@1-2"]) {
    wanted = withChange(wanted, { kind: "feature", text });
  }
  assert.deepEqual(wanted.features, ["encoder:3:604x2", "encoder:3:604=1@1-2"]);
  assert.deepEqual(changesOf(without(wanted, zeroed("decoder_blocks.0.mlp"))).length, 2);
  wanted = withChange(wanted, { kind: "scale", text: "decoder_blocks.0.mlpx0.5" });
  assert.deepEqual([wanted.zero, wanted.scale], [[], ["decoder_blocks.0.mlpx0.5"]]);
});

test("what a person types is read, or refused", () => {
  assert.deepEqual(readChange(" 1.20–1.8 s "), { kind: "silence", text: "1.2-1.8" });
  assert.deepEqual(readChange("zero decoder_blocks.2.cross_attn.3"), zeroed("decoder_blocks.2.cross_attn.3"));
  assert.deepEqual(readChange("blocks.9.attn.3x0.5"), { kind: "scale", text: "blocks.9.attn.3x0.5" });
  assert.deepEqual(readChange("text:9:17=0@3"), { kind: "feature", text: "text:9:17=0@3" });
  assert.deepEqual(readChange("decoder:2:17x-0.5@5,6"), { kind: "feature", text: "decoder:2:17x-0.5@5,6" });
  for (const text of ["", "2-1", "decoder_blocks.2.mlp.3", "encoder:3", "audio:1:2=0", "blocks.2.attn.3x", "<img>"]) {
    assert.equal(readChange(text), undefined);
  }
});

test("changes are told in words", () => {
  assert.equal(inWords(zeroed("decoder_blocks.2.cross_attn.3")), "decoder layer 2, cross-attention head 3 zeroed");
  assert.equal(inWords({ kind: "feature", text: "encoder:3:604x2@1.2-1.8" }), "encoder layer 3, feature 604 times 2 at 1.2–1.8 s");
  assert.equal(inWords({ kind: "silence", text: "1.2-1.8" }), "1.2–1.8 s silenced");
});

test("the address brings the list back and keeps what else is in it", () => {
  const wanted = ["1.2-1.8", "decoder_blocks.0.mlp", "encoder:3:604=0@1-2"].map((text) => readChange(text) as Change).reduce(withChange, NOTHING);
  const hash = addressWith("#token=5", parametersOf(wanted));
  assert.ok(hash.startsWith("#token=5&"));
  assert.deepEqual(wantedInHash(hash), wanted);
  assert.deepEqual(wantedInHash("#silence=<img>&zero=%"), NOTHING);
  assert.equal(addressWith(hash, parametersOf(NOTHING)), "#token=5");
});

test("features bring their dictionary, which comes back with the address and goes with the last of them", () => {
  const feature: Change = { kind: "feature", text: "encoder:3:604=0" };
  const wanted: Intervention = { ...withChange(NOTHING, feature), encoder_dictionary: "made here/a&b" };
  assert.deepEqual(wantedInHash(addressWith("#node=5", parametersOf(wanted))), wanted);
  assert.deepEqual(without(wanted, feature), NOTHING);
  assert.deepEqual(wantedInHash("#silence=1-2&dictionary=somewhere").dictionary, "neurons");
});

test("features of two dictionaries of one stack are not mixed", () => {
  const wanted: Intervention = { ...withChange(NOTHING, { kind: "feature", text: "encoder:3:604=0" }), encoder_dictionary: "one" };
  assert.ok(mayJoin(wanted, { encoder_dictionary: "one" }));
  assert.ok(mayJoin(wanted, { dictionary: "two" }));
  assert.ok(!mayJoin(wanted, { encoder_dictionary: "two" }));
  assert.ok(!mayJoin(wanted, { dictionary: "two", encoder_dictionary: "neurons" }));
  assert.ok(mayJoin(NOTHING, { dictionary: "two", encoder_dictionary: "two" }));
});

test("tokens of two texts are paired in order", () => {
  assert.deepEqual(partners([1, 2, 3, 4], [1, 9, 3, 4, 5]), [0, undefined, 2, 3, undefined]);
  assert.deepEqual(partners([], [1]), [undefined]);
});
