/** An intervention as it is put together on a page: what is in it, how people call it, and the lines that do it. */

import type { Component, ExplainDoc, Intervention } from "../contract.ts";

export const NOTHING: Intervention = {
  silence: [],
  zero: [],
  features: [],
  dictionary: "neurons",
  encoder_dictionary: "neurons",
};

/** Which dictionaries features are of: a folder each, or the model's own neurons. */
export type Dictionaries = Partial<Pick<Intervention, "dictionary" | "encoder_dictionary">>;

/** One entry of the list of changes; `text` is its spelling, as on the command line. */
export interface Change {
  kind: "silence" | "zero" | "feature";
  text: string;
}

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?";
const SPAN = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/;
const COMPONENT = /^(encoder|decoder)_blocks\.(\d+)\.(self_attn|cross_attn|attn|mlp)(?:\.(\d+))?$/;
const FEATURE = new RegExp(`^(encoder|decoder):(\\d+):(\\d+)([=x])(${NUMBER})(?:@([\\d.,-]+))?$`);

export function changesOf(wanted: Intervention): Change[] {
  return [
    ...wanted.silence.map((span): Change => ({ kind: "silence", text: spellSpan(span) })),
    ...wanted.zero.map((text): Change => ({ kind: "zero", text })),
    ...wanted.features.map((text): Change => ({ kind: "feature", text })),
  ];
}

/** The same with one more change; a change that is there already, or another of the same feature and place, is replaced. */
export function withChange(wanted: Intervention, change: Change): Intervention {
  const rest = without(wanted, change);
  if (change.kind === "silence") return { ...rest, silence: [...rest.silence, spanOf(change.text)] };
  if (change.kind === "zero") return { ...rest, zero: [...rest.zero, change.text] };
  const target = targetOf(change.text);
  return { ...rest, features: [...rest.features.filter((text) => targetOf(text) !== target), change.text] };
}

export function without(wanted: Intervention, change: Change): Intervention {
  const rest = {
    ...wanted,
    silence: change.kind === "silence" ? wanted.silence.filter((span) => spellSpan(span) !== change.text) : wanted.silence,
    zero: change.kind === "zero" ? wanted.zero.filter((text) => text !== change.text) : wanted.zero,
    features: change.kind === "feature" ? wanted.features.filter((text) => text !== change.text) : wanted.features,
  };
  // A dictionary stays for as long as one of its features does.
  return {
    ...rest,
    dictionary: hasFeatures(rest, "decoder") ? wanted.dictionary : NOTHING.dictionary,
    encoder_dictionary: hasFeatures(rest, "encoder") ? wanted.encoder_dictionary : NOTHING.encoder_dictionary,
  };
}

/** Whether features of these dictionaries may join: a list holds features of one dictionary a stack. */
export function mayJoin(wanted: Intervention, { dictionary, encoder_dictionary }: Dictionaries): boolean {
  const fits = (stack: string, own: string, other: string | undefined) => other === undefined || other === own || !hasFeatures(wanted, stack);
  return fits("decoder", wanted.dictionary, dictionary) && fits("encoder", wanted.encoder_dictionary, encoder_dictionary);
}

function hasFeatures({ features }: Intervention, stack: string): boolean {
  return features.some((text) => text.startsWith(`${stack}:`));
}

/** What a person typed, if it spells a change. */
export function readChange(typed: string): Change | undefined {
  const text = typed.trim().replace(/^(?:silence|zero)\s+/, "").replace(/\s*s$/, "").replace("–", "-");
  const span = SPAN.exec(text);
  if (span) return Number(span[1]) < Number(span[2]) ? { kind: "silence", text: spellSpan(spanOf(text)) } : undefined;
  const component = COMPONENT.exec(text);
  if (component) return component[3] === "mlp" && component[4] ? undefined : { kind: "zero", text };
  return FEATURE.test(text) ? { kind: "feature", text } : undefined;
}

export function spellSpan([start, end]: [number, number]): string {
  return [start, end].map((time) => String(Number(time.toFixed(4)))).join("-");
}

/** `encoder:3:604=0`, or in a span of the sound or at positions of the text `encoder:3:604=0@1.2-1.8`. */
export function spellFeature(stack: string, layer: number, feature: number, op: "=" | "x", value: number, place = ""): string {
  return `${stack}:${layer}:${feature}${op}${value}${place && `@${place}`}`;
}

export function spellComponent({ stack, layer, part, head }: Pick<Component, "stack" | "layer" | "part" | "head">): string {
  return `${stack}_blocks.${layer}.${part}${head === undefined ? "" : `.${head}`}`;
}

const PARTS: Record<string, string> = {
  self_attn: "self-attention",
  cross_attn: "cross-attention",
  attn: "self-attention",
  mlp: "MLP",
};

/** In words: "decoder layer 2, cross-attention head 3 zeroed". */
export function inWords({ kind, text }: Change): string {
  if (kind === "silence") return `${text.replace("-", "–")} s silenced`;
  const component = COMPONENT.exec(text);
  if (component) {
    const [, stack, layer, part, head] = component;
    return `${stack} layer ${layer}, ${PARTS[part ?? ""]}${head === undefined ? "" : ` head ${head}`} zeroed`;
  }
  const found = FEATURE.exec(text);
  if (!found) return text;
  const [, stack, layer, feature, op, value, place] = found;
  const done = op === "=" ? (Number(value) === 0 ? "taken away" : `set to ${value}`) : Number(value) === 0 ? "taken away" : `times ${value}`;
  const where = place ? (stack === "encoder" ? ` at ${place.replaceAll("-", "–")} s` : ` at position ${place}`) : "";
  return `${stack} layer ${layer}, feature ${feature} ${done}${where}`;
}

/** Arguments of `intervene` beside model, clip and intervention; only those that are not usual. */
export interface How {
  offset?: number;
  language?: string;
  controls?: number;
  seed?: number;
}

/** How the clip of a document was heard, so that it is heard so again. */
export function howOf(doc: Pick<ExplainDoc, "audio" | "settings">): How {
  const { language } = doc.settings;
  return { offset: doc.audio.start, ...(typeof language === "string" ? { language } : {}) };
}

export function pythonLine(model: string, clip: string, wanted: Intervention, how: How): string {
  const given = Object.entries(wanted).flatMap(([name, value]) => {
    if (value === "neurons" || value.length === 0) return [];
    return [`${name}=${typeof value === "string" ? quoted(value) : listed(value)}`];
  });
  const more = known(how).map(([name, value]) => `, ${name}=${typeof value === "string" ? quoted(value) : pythonNumber(name, value)}`);
  return (
    `import otoscope as oto; outcome = oto.intervene(oto.load_model(${quoted(model)}), ${quoted(clip)}, ` +
    `oto.Intervention(${given.join(", ")})${more.join("")})`
  );
}

export function commandLine(model: string, clip: string, wanted: Intervention, how: How): string {
  const options = { silence: "--silence", zero: "--zero", feature: "--feature" };
  const words = ["otoscope", "intervene", clip, "--model", model];
  for (const change of changesOf(wanted)) words.push(options[change.kind], change.text);
  if (wanted.dictionary !== "neurons") words.push("--dictionary", wanted.dictionary);
  if (wanted.encoder_dictionary !== "neurons") words.push("--encoder-dictionary", wanted.encoder_dictionary);
  return [...words, ...optionsOf(how)].map(shellWord).join(" ");
}

/** The command that explains a clip and traces the circuit of one token. */
export function explainLine(model: string, clip: string, token: number, how: How): string {
  return ["otoscope", "explain", clip, "--model", model, "--token", String(token), ...optionsOf(how)].map(shellWord).join(" ");
}

function optionsOf(how: How): string[] {
  return known(how).flatMap(([name, value]) => [`--${name}`, typeof value === "string" ? value : pythonNumber(name, value)]);
}

function known(how: How): [string, string | number][] {
  const usual: Record<string, unknown> = { offset: 0, controls: 5, seed: 0 };
  return ["offset", "language", "controls", "seed"].flatMap((name): [string, string | number][] => {
    const value = how[name as keyof How];
    return value === undefined || value === usual[name] ? [] : [[name, value]];
  });
}

function listed(values: (string | [number, number])[]): string {
  const items = values.map((value) => (typeof value === "string" ? quoted(value) : `(${value.map(float).join(", ")})`));
  return `[${items.join(", ")}]`;
}

function pythonNumber(name: string, value: number): string {
  return name === "offset" ? float(value) : String(value);
}

function float(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/** A Python string literal of any text. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = "";
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    if (character === "\\" || character === quote) out += `\\${character}`;
    else if (code < 32 || code === 127 || /[\p{C}\p{Z}]/u.test(character) && character !== " ") out += escaped(code);
    else out += character;
  }
  return quote + out + quote;
}

function escaped(code: number): string {
  const named: Record<number, string> = { 9: "\\t", 10: "\\n", 13: "\\r" };
  if (named[code]) return named[code];
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\U${code.toString(16).padStart(8, "0")}`;
}

/** A word for a POSIX shell, whatever is in it. */
function shellWord(word: string): string {
  if (word === "") return "''";
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

function spanOf(text: string): [number, number] {
  const found = SPAN.exec(text);
  return [Number(found?.[1]), Number(found?.[2])];
}

function targetOf(feature: string): string {
  const found = FEATURE.exec(feature);
  return found ? `${found[1]}:${found[2]}:${found[3]}@${found[6] ?? ""}` : feature;
}

/** What the address says is wanted; what it cannot mean is passed over. */
export function wantedInHash(hash: string): Intervention {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const texts = ["silence", "zero", "feature"].flatMap((name) => parameters.getAll(name)).slice(0, 200);
  const wanted = texts.flatMap((text) => readChange(text) ?? []).reduce(withChange, NOTHING);
  const of = (name: "dictionary" | "encoder_dictionary", stack: string) => (hasFeatures(wanted, stack) && parameters.get(name)) || NOTHING[name];
  return { ...wanted, dictionary: of("dictionary", "decoder"), encoder_dictionary: of("encoder_dictionary", "encoder") };
}

export function parametersOf(wanted: Intervention): Record<string, string[]> {
  const of = (kind: Change["kind"]) => changesOf(wanted).filter((change) => change.kind === kind).map(({ text }) => text);
  const unusual = (name: string) => (name === "neurons" ? [] : [name]);
  return {
    silence: of("silence"),
    zero: of("zero"),
    feature: of("feature"),
    dictionary: unusual(wanted.dictionary),
    encoder_dictionary: unusual(wanted.encoder_dictionary),
  };
}
