/** An intervention as it is put together on a page: what is in it, and how people call it. */

import type { Component, Intervention } from "../contract.ts";

export const NOTHING: Intervention = {
  silence: [],
  zero: [],
  scale: [],
  features: [],
  dictionary: "neurons",
  encoder_dictionary: "neurons",
};

/** Which dictionaries features are of: a folder each, or the model's own neurons. */
export type Dictionaries = Partial<Pick<Intervention, "dictionary" | "encoder_dictionary">>;

/** One entry of the list of changes; `text` is its spelling, as on the command line. */
export interface Change {
  kind: "silence" | "zero" | "scale" | "feature";
  text: string;
}

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?";
const SPAN = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/;
const COMPONENT = new RegExp(`^(encoder_|decoder_|)blocks\\.(\\d+)\\.(self_attn|cross_attn|attn|mlp)(?:\\.(\\d+))?(?:x(${NUMBER}))?$`);
const FEATURE = new RegExp(`^(encoder|decoder|text):(\\d+):(\\d+)([=x])(${NUMBER})(?:@([\\d.,-]+))?$`);

export function changesOf(wanted: Intervention): Change[] {
  return [
    ...wanted.silence.map((span): Change => ({ kind: "silence", text: spellSpan(span) })),
    ...wanted.zero.map((text): Change => ({ kind: "zero", text })),
    ...wanted.scale.map((text): Change => ({ kind: "scale", text })),
    ...wanted.features.map((text): Change => ({ kind: "feature", text })),
  ];
}

/** The same with one more change; a change that is there already, or another of the same feature and place, is replaced. */
export function withChange(wanted: Intervention, change: Change): Intervention {
  const rest = without(wanted, change);
  if (change.kind === "silence") return { ...rest, silence: [...rest.silence, spanOf(change.text)] };
  if (change.kind !== "feature") {
    // A component has one factor: the last word counts, here as with features.
    const [zero, scale] = [rest.zero, rest.scale].map((texts) => texts.filter((text) => unscaled(text) !== unscaled(change.text))) as [string[], string[]];
    return { ...rest, zero, scale, [change.kind]: [...(change.kind === "zero" ? zero : scale), change.text] };
  }
  const target = targetOf(change.text);
  return { ...rest, features: [...rest.features.filter((text) => targetOf(text) !== target), change.text] };
}

export function without(wanted: Intervention, change: Change): Intervention {
  const rest = {
    ...wanted,
    silence: change.kind === "silence" ? wanted.silence.filter((span) => spellSpan(span) !== change.text) : wanted.silence,
    zero: change.kind === "zero" ? wanted.zero.filter((text) => text !== change.text) : wanted.zero,
    scale: change.kind === "scale" ? wanted.scale.filter((text) => text !== change.text) : wanted.scale,
    features: change.kind === "feature" ? wanted.features.filter((text) => text !== change.text) : wanted.features,
  };
  // A dictionary stays for as long as one of its features does.
  return {
    ...rest,
    dictionary: hasFeatures(rest, "decoder", "text") ? wanted.dictionary : NOTHING.dictionary,
    encoder_dictionary: hasFeatures(rest, "encoder") ? wanted.encoder_dictionary : NOTHING.encoder_dictionary,
  };
}

/** Whether features of these dictionaries may join: a list holds features of one dictionary a stack. */
export function mayJoin(wanted: Intervention, { dictionary, encoder_dictionary }: Dictionaries): boolean {
  const fits = (own: string, other: string | undefined, ...stacks: string[]) => other === undefined || other === own || !hasFeatures(wanted, ...stacks);
  return fits(wanted.dictionary, dictionary, "decoder", "text") && fits(wanted.encoder_dictionary, encoder_dictionary, "encoder");
}

function hasFeatures({ features }: Intervention, ...stacks: string[]): boolean {
  return stacks.some((stack) => features.some((text) => text.startsWith(`${stack}:`)));
}

/** What a person typed, if it spells a change. */
export function readChange(typed: string): Change | undefined {
  const text = typed.trim().replace(/^(?:silence|zero|scale)\s+/, "").replace(/\s*s$/, "").replace("–", "-");
  const span = SPAN.exec(text);
  if (span) return Number(span[1]) < Number(span[2]) ? { kind: "silence", text: spellSpan(spanOf(text)) } : undefined;
  const component = COMPONENT.exec(text);
  if (component) return component[3] === "mlp" && component[4] ? undefined : { kind: component[5] === undefined ? "zero" : "scale", text };
  return FEATURE.test(text) ? { kind: "feature", text } : undefined;
}

export function spellSpan([start, end]: [number, number]): string {
  return [start, end].map((time) => String(Number(time.toFixed(4)))).join("-");
}

/** `encoder:3:604=0`, or in a span of the sound or at positions of the text `encoder:3:604=0@1.2-1.8`. */
export function spellFeature(stack: string, layer: number, feature: number, op: "=" | "x", value: number, place = ""): string {
  return `${stack}:${layer}:${feature}${op}${value}${place && `@${place}`}`;
}

export function spellComponent({ stack, layer, part, head }: { stack: string; part: string } & Pick<Component, "layer" | "head">): string {
  return `${stack === "text" ? "" : `${stack}_`}blocks.${layer}.${part}${head === undefined ? "" : `.${head}`}`;
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
    const [, stack, layer, part, head, factor] = component;
    const done = factor === undefined || Number(factor) === 0 ? "zeroed" : `times ${factor}`;
    return `${stack ? `${stack.slice(0, -1)} ` : ""}layer ${layer}, ${PARTS[part ?? ""]}${head === undefined ? "" : ` head ${head}`} ${done}`;
  }
  const found = FEATURE.exec(text);
  if (!found) return text;
  const [, stack, layer, feature, op, value, place] = found;
  const done = op === "=" ? (Number(value) === 0 ? "taken away" : `set to ${value}`) : Number(value) === 0 ? "taken away" : `times ${value}`;
  const where = place ? (stack === "encoder" ? ` at ${place.replaceAll("-", "–")} s` : ` at position ${place}`) : "";
  return `${stack === "text" ? "" : `${stack} `}layer ${layer}, feature ${feature} ${done}${where}`;
}

function spanOf(text: string): [number, number] {
  const found = SPAN.exec(text);
  return [Number(found?.[1]), Number(found?.[2])];
}

function unscaled(component: string): string {
  return component.replace(/x[^x]*$/, "");
}

function targetOf(feature: string): string {
  const found = FEATURE.exec(feature);
  return found ? `${found[1]}:${found[2]}:${found[3]}@${found[6] ?? ""}` : feature;
}

/** What the address says is wanted; what it cannot mean is passed over. */
export function wantedInHash(hash: string): Intervention {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const texts = ["silence", "zero", "scale", "feature"].flatMap((name) => parameters.getAll(name)).slice(0, 200);
  const wanted = texts.flatMap((text) => readChange(text) ?? []).reduce(withChange, NOTHING);
  const of = (name: "dictionary" | "encoder_dictionary", ...stacks: string[]) => (hasFeatures(wanted, ...stacks) && parameters.get(name)) || NOTHING[name];
  return { ...wanted, dictionary: of("dictionary", "decoder", "text"), encoder_dictionary: of("encoder_dictionary", "encoder") };
}

export function parametersOf(wanted: Intervention): Record<string, string[]> {
  const of = (kind: Change["kind"]) => changesOf(wanted).filter((change) => change.kind === kind).map(({ text }) => text);
  const unusual = (name: string) => (name === "neurons" ? [] : [name]);
  return {
    silence: of("silence"),
    zero: of("zero"),
    scale: of("scale"),
    feature: of("feature"),
    dictionary: unusual(wanted.dictionary),
    encoder_dictionary: unusual(wanted.encoder_dictionary),
  };
}
