/** Lines that do elsewhere what a page does: Python, and the command line. */

import type { ExplainDoc, Intervention } from "../contract.ts";
import { changesOf } from "./experiment.ts";

/** What is changed: a recording, or a prompt that a language model continues. */
export interface Given {
  of: "recording" | "prompt";
  text: string; // the recording's file, or the prompt itself
}

/** Arguments of `intervene` beside model, clip and intervention; only those that are not usual. */
export interface How {
  offset?: number;
  language?: string;
  tokens?: number;
  controls?: number;
  seed?: number;
}

/** How the clip of a document was heard, so that it is heard so again. */
export function howOf(doc: Pick<ExplainDoc, "audio" | "settings">): How {
  const { language } = doc.settings;
  return { offset: doc.audio.start, ...(typeof language === "string" ? { language } : {}) };
}

export function pythonLine(model: string, given: Given, wanted: Intervention, how: How): string {
  const changes = Object.entries(wanted).flatMap(([name, value]) => {
    if (value === "neurons" || value.length === 0) return [];
    return [`${name}=${typeof value === "string" ? quoted(value) : listed(value)}`];
  });
  const more = known(how).map(([name, value]) => `, ${name}=${typeof value === "string" ? quoted(value) : pythonNumber(name, value)}`);
  return (
    `import otoscope as oto; outcome = oto.${given.of === "prompt" ? "intervene_prompt" : "intervene"}(oto.load_model(${quoted(model)}), ` +
    `${quoted(given.text)}, oto.Intervention(${changes.join(", ")})${more.join("")})`
  );
}

export function commandLine(model: string, given: Given, wanted: Intervention, how: How): string {
  const options = { silence: "--silence", zero: "--zero", scale: "--scale", feature: "--feature" };
  const what = given.of === "prompt" ? ["--prompt", given.text] : [given.text];
  const words = ["otoscope", "intervene", ...what, "--model", model];
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
  const usual: Record<string, unknown> = { offset: 0, tokens: 12, controls: 5, seed: 0 };
  return ["offset", "language", "tokens", "controls", "seed"].flatMap((name): [string, string | number][] => {
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
