/** A part of the page written down as SVG: boxes, texts, inline SVG, and canvases (as vectors where they know how). */

import { escaped, type Pen, short, SvgPen } from "./pen.ts";

/** Controls are no part of a picture; anything else is left out with `data-picture="no"`. */
const LEFT_OUT = "[data-picture=no], .controls, .play, input, select, textarea, audio, output, script, style, noscript";
const INHERITED = [
  "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "fill-opacity", "stroke-opacity",
  "opacity", "font-family", "font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline", "vector-effect", "paint-order",
];

const redraws = new WeakMap<HTMLCanvasElement, (pen: Pen) => void>();

/** Tell how a canvas is drawn, in CSS pixels, so that its figure is saved as vectors and not as a bitmap. */
export function redrawable(canvas: HTMLCanvasElement, draw: (pen: Pen) => void): void {
  redraws.set(canvas, draw);
}

export interface Drawn {
  parts: string[];
  width: number;
  height: number;
}

interface Sheet {
  parts: string[];
  origin: DOMRect;
  right: number;
  bottom: number;
  paints: number; // gradients and patterns so far
}

/** What would leave a gap behind, or say twice what the caption says: it is taken off the page while the picture is made. */
const FOLDED = ".controls, .panel > h2, .lead [data-picture=no]";

/** Everything in an element, also what is scrolled out of sight. */
export function serialised(root: HTMLElement): Drawn {
  const folded = [...root.querySelectorAll<HTMLElement>(FOLDED)].map((element) => [element, element.style.display] as const);
  for (const [element] of folded) element.style.display = "none";
  try {
    return written(root);
  } finally {
    for (const [element, display] of folded) element.style.display = display;
  }
}

function written(root: HTMLElement): Drawn {
  const scrolled = [...root.querySelectorAll<HTMLElement>("*")].filter((box) => box.scrollLeft || box.scrollTop);
  const places = scrolled.map((box) => [box.scrollLeft, box.scrollTop] as const);
  for (const box of scrolled) box.scrollTo({ left: 0, top: 0, behavior: "instant" }); // what sticks is at its own place then
  const sheet: Sheet = { parts: [], origin: root.getBoundingClientRect(), right: 0, bottom: 0, paints: 0 };
  try {
    for (const child of root.childNodes) write(child, sheet);
  } finally {
    scrolled.forEach((box, i) => box.scrollTo({ left: places[i]?.[0] ?? 0, top: places[i]?.[1] ?? 0, behavior: "instant" }));
  }
  return { parts: sheet.parts, width: Math.ceil(sheet.right), height: Math.ceil(sheet.bottom) };
}

function write(node: Node, sheet: Sheet): void {
  if (node instanceof Text) return writeText(node, sheet);
  if (!(node instanceof Element) || node.matches(LEFT_OUT)) return;
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  if (style.display === "none" || style.visibility === "hidden" || style.opacity === "0") return;
  if (box.width > 0 && box.height > 0) {
    if (node instanceof SVGSVGElement) return writeSvg(node, box, sheet);
    writeBox(style, box, sheet);
    if (node instanceof HTMLCanvasElement) return writeCanvas(node, box, sheet);
    if (node.localName === "q") writeQuotes(style, box, sheet);
  }
  const clipped = style.overflowX === "hidden" || style.overflowX === "clip";
  if (!clipped) {
    for (const child of paintOrder(node)) write(child, sheet);
    return;
  }
  const inner: Sheet = { ...sheet, parts: [], right: 0, bottom: 0 };
  for (const child of paintOrder(node)) write(child, inner);
  sheet.paints = inner.paints;
  if (inner.parts.length === 0) return;
  const { x, y } = placed(box, sheet);
  const frame = `x="${short(x)}" y="${short(y)}" width="${short(box.width)}" height="${short(box.height)}"`;
  sheet.parts.push(`<svg ${frame} viewBox="${short(x)} ${short(y)} ${short(box.width)} ${short(box.height)}">`, ...inner.parts, "</svg>");
}

/** What is in an element, in the order in which the page paints it: marks and names that lie above a canvas come after it. */
function paintOrder(node: Element): Node[] {
  const height = (child: Node) => (child instanceof Element && Number(getComputedStyle(child).zIndex)) || 0;
  return [...node.childNodes].map((child) => ({ child, height: height(child) })).sort((a, b) => a.height - b.height).map(({ child }) => child);
}

/** A rectangle in the picture; the picture grows to hold it. */
function placed(box: DOMRect, sheet: Sheet): { x: number; y: number } {
  const x = box.left - sheet.origin.left;
  const y = box.top - sheet.origin.top;
  sheet.right = Math.max(sheet.right, x + box.width);
  sheet.bottom = Math.max(sheet.bottom, y + box.height);
  return { x, y };
}

function writeBox(style: CSSStyleDeclaration, box: DOMRect, sheet: Sheet): void {
  const { x, y } = placed(box, sheet);
  const rectangle = (inset: number) =>
    `<rect x="${short(x + inset)}" y="${short(y + inset)}" width="${short(Math.max(box.width - 2 * inset, 0))}" ` +
    `height="${short(Math.max(box.height - 2 * inset, 0))}" rx="${short(Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2))}"`;
  if (seen(style.backgroundColor)) sheet.parts.push(`${rectangle(0)} fill="${style.backgroundColor}"/>`);
  const gradient = hatchingOf(style.backgroundImage, sheet) ?? gradientOf(style.backgroundImage, sheet);
  if (gradient) sheet.parts.push(`${rectangle(0)} fill="${gradient}"/>`);
  const shadow = /^(.*?\)) (-?[\d.]+)px (-?[\d.]+)px (-?[\d.]+)px (-?[\d.]+)px inset/.exec(style.boxShadow);
  if (shadow) {
    const [down, spread] = [Number(shadow[3]), Number(shadow[5])];
    if (spread) sheet.parts.push(`${rectangle(spread / 2)} fill="none" stroke="${shadow[1]}" stroke-width="${spread}"/>`);
    if (down < 0) sheet.parts.push(`<rect x="${short(x)}" y="${short(y + box.height + down)}" width="${short(box.width)}" height="${-down}" fill="${shadow[1]}"/>`);
  }
  writeBorders(style, x, y, box, sheet);
}

function writeBorders(style: CSSStyleDeclaration, x: number, y: number, box: DOMRect, sheet: Sheet): void {
  const [right, bottom] = [x + box.width, y + box.height];
  const sides = [
    ["top", x, y, right, y],
    ["right", right, y, right, bottom],
    ["bottom", x, bottom, right, bottom],
    ["left", x, y, x, bottom],
  ] as const;
  for (const [side, x1, y1, x2, y2] of sides) {
    const width = parseFloat(style.getPropertyValue(`border-${side}-width`));
    const colour = style.getPropertyValue(`border-${side}-color`);
    const kind = style.getPropertyValue(`border-${side}-style`);
    if (!width || !seen(colour) || kind === "none") continue;
    const dashes = kind === "dashed" ? ' stroke-dasharray="4 3"' : kind === "dotted" ? ' stroke-dasharray="1 2"' : "";
    sheet.parts.push(
      `<line x1="${short(x1)}" y1="${short(y1)}" x2="${short(x2)}" y2="${short(y2)}" stroke="${colour}" stroke-width="${width}"${dashes}/>`,
    );
  }
}

/** A plain linear gradient as a paint; undefined for anything else. */
function gradientOf(image: string, sheet: Sheet): string | undefined {
  const inside = /^linear-gradient\((.*?\))\)(?:,|$)/.exec(image)?.[1];
  if (!inside) return undefined;
  const words = inside.split(/,\s*(?![^(]*\))/);
  const across = /^90deg$/.test(words[0] ?? "") ? words.slice(1) : words;
  const colours = across.map((word) => /^(?:[a-z]+\([^)]*\)|#\w+)/.exec(word)?.[0]).filter((word) => word !== undefined);
  if (colours.length === 0) return undefined;
  const id = `paint${sheet.paints++}`;
  const last = Math.max(colours.length - 1, 1);
  const stops = colours.map((colour, i) => `<stop offset="${short(i / last)}" stop-color="${colour}"/>`).join("");
  sheet.parts.push(`<linearGradient id="${id}">${stops}</linearGradient>`);
  return `url(#${id})`;
}

/** Slanted hatching, a repeated gradient of one colour in stripes, as a paint; undefined for anything else. */
function hatchingOf(image: string, sheet: Sheet): string | undefined {
  const found = /^repeating-linear-gradient\((-?[\d.]+)deg,.* (\S+\([^)]*\)) ([\d.]+)px,? .*?([\d.]+)px\)$/.exec(image);
  if (!found) return undefined;
  const [, angle, colour, begin, end] = found;
  const id = `paint${sheet.paints++}`;
  const stripe = `<rect y="${begin}" width="${end}" height="${short(Number(end) - Number(begin))}" fill="${colour}"/>`;
  const turn = `patternUnits="userSpaceOnUse" width="${end}" height="${end}" patternTransform="rotate(${angle})"`;
  sheet.parts.push(`<pattern id="${id}" ${turn}>${stripe}</pattern>`);
  return `url(#${id})`;
}

function seen(colour: string): boolean {
  return colour !== "transparent" && !/(?:,|\/) 0\)$/.test(colour);
}

const measuring = new OffscreenCanvas(1, 1).getContext("2d") as OffscreenCanvasRenderingContext2D;

function writeText(node: Text, sheet: Sheet): void {
  const parent = node.parentElement;
  if (!parent || !node.data.trim()) return;
  const style = getComputedStyle(parent);
  if (style.visibility === "hidden") return;
  const font = measure(style);
  const { fontBoundingBoxAscent: above, fontBoundingBoxDescent: below } = measuring.measureText("x");
  const upright = style.writingMode === "horizontal-tb";
  for (const { text, box } of lines(node)) {
    const { x, y } = placed(box, sheet);
    if (!upright) {
      const at = `translate(${short(x + (box.width - above - below) / 2 + below)} ${short(y)}) rotate(90)`; // read from top to bottom
      sheet.parts.push(`<text transform="${at}" style="font:${escaped(font)}" fill="${style.color}">${escaped(text)}</text>`);
      continue;
    }
    const baseline = y + (box.height - above - below) / 2 + above;
    const backwards = style.direction === "rtl";
    sheet.parts.push(
      `<text x="${short(backwards ? x + box.width : x)}" y="${short(baseline)}" direction="${style.direction}" xml:space="preserve" ` +
        `style="font:${escaped(font)};unicode-bidi:isolate" fill="${style.color}">${escaped(text)}</text>`,
    );
  }
}

/** The quotation marks that the browser puts around a quotation of one line; they are in no text node. */
function writeQuotes(style: CSSStyleDeclaration, box: DOMRect, sheet: Sheet): void {
  const font = measure(style);
  const { fontBoundingBoxAscent: above, fontBoundingBoxDescent: below } = measuring.measureText("x");
  const { x, y } = placed(box, sheet);
  const baseline = short(y + (box.height - above - below) / 2 + above);
  const mark = (text: string, at: number) => `<text x="${short(at)}" y="${baseline}" style="font:${escaped(font)}" fill="${style.color}">${text}</text>`;
  sheet.parts.push(mark("“", x), mark("”", x + box.width - measuring.measureText("”").width));
}

function measure(style: CSSStyleDeclaration): string {
  const font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  measuring.font = font;
  return font;
}

/** A text node's lines as they are broken on the page, blanks collapsed as there. */
function* lines(node: Text): Generator<{ text: string; box: DOMRect }> {
  const range = document.createRange();
  // Blanks at the ends take room on the page and are not written: the text begins where its first letter stands.
  range.setStart(node, node.data.search(/\S/));
  range.setEnd(node, node.data.trimEnd().length);
  const whole = range.getClientRects();
  if (whole.length === 0) return;
  if (whole.length === 1) {
    yield { text: node.data.replace(/\s+/g, " ").replace(/^ +| +$/g, ""), box: whole[0] as DOMRect };
    return;
  }
  let line: { text: string; box: DOMRect } | undefined;
  for (const word of node.data.matchAll(/\S+\s*/g)) {
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].trimEnd().length);
    const box = range.getBoundingClientRect();
    const next = !line || box.top > line.box.top + line.box.height / 2;
    if (line && next) yield line;
    if (!line || next) line = { text: word[0].trim(), box };
    else line = { text: `${line.text} ${word[0].trim()}`, box: new DOMRect(line.box.x, line.box.y, box.right - line.box.x, line.box.height) };
  }
  if (line) yield line;
}

function writeCanvas(canvas: HTMLCanvasElement, box: DOMRect, sheet: Sheet): void {
  const { x, y } = placed(box, sheet);
  const draw = redraws.get(canvas);
  const pen = new SvgPen();
  if (draw) draw(pen);
  else pen.drawImage(canvas, 0, 0, box.width, box.height);
  sheet.parts.push(`<g transform="translate(${short(x)} ${short(y)})">`, ...pen.parts, "</g>");
}

/** Inline SVG as it is, with the page's styles written into it. */
function writeSvg(svg: SVGSVGElement, box: DOMRect, sheet: Sheet): void {
  const { x, y } = placed(box, sheet);
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const originals = [svg, ...svg.querySelectorAll("*")];
  const gone: Element[] = [];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const original = originals[i] as Element;
    const style = getComputedStyle(original);
    if (original.matches(LEFT_OUT) || style.display === "none") gone.push(element);
    for (const name of INHERITED) element.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "style", "tabindex"]) element.removeAttribute(name);
  });
  for (const element of gone) element.remove();
  const frame = { x, y, width: box.width, height: box.height };
  for (const [name, value] of Object.entries(frame)) copy.setAttribute(name, short(value));
  if (!svg.hasAttribute("viewBox")) copy.setAttribute("viewBox", `0 0 ${short(box.width)} ${short(box.height)}`);
  sheet.parts.push(new XMLSerializer().serializeToString(copy));
}
