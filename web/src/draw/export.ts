/** A figure as a file: SVG with text and shapes, or PNG at twice the size, both saying what they show and of which model. */

import { escaped, short } from "./pen.ts";
import { serialised } from "./serialise.ts";

export interface Caption {
  title: string;
  about: string; // one sentence: what is drawn
  source: string; // recording or corpus, and model
}

const MARGIN = 20;
const LINE = 19;
const FONT = 'system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const LARGEST = 16_000; // pixels that a canvas may be wide or high

/** The SVG text of a part of the page under its caption. */
export function svgOf(root: HTMLElement, caption: Caption): { svg: string; width: number; height: number } {
  const drawn = serialised(root);
  const style = getComputedStyle(root);
  const [ink, paper, muted] = [style.color, getComputedStyle(document.body).backgroundColor, style.getPropertyValue("--muted").trim()];
  const inner = Math.max(drawn.width, 380);
  const head = wrapped(caption.title, inner, 16, 600);
  const about = wrapped(caption.about, inner, 13, 400);
  const foot = wrapped(`${caption.source} · drawn by otoscope`, inner, 11, 400);
  const top = MARGIN + (head.length + about.length) * LINE + 10;
  const width = inner + 2 * MARGIN;
  const height = top + drawn.height + 14 + foot.length * LINE + MARGIN / 2;
  const text = (lines: string[], y: number, size: number, weight: number, colour: string) =>
    lines.map((line, i) => `<text x="${MARGIN}" y="${short(y + i * LINE)}" style='font:${weight} ${size}px ${FONT}' fill="${colour}">${escaped(line)}</text>`);
  const svg = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${short(height)}" viewBox="0 0 ${width} ${short(height)}" role="img">`,
    `<title>${escaped(caption.title)}</title><desc>${escaped(`${caption.about} ${caption.source}`)}</desc>`,
    `<rect width="100%" height="100%" fill="${paper}"/>`,
    ...text(head, MARGIN + 12, 16, 600, ink),
    ...text(about, MARGIN + 12 + head.length * LINE, 13, 400, muted || ink),
    `<g transform="translate(${MARGIN} ${short(top)})">`,
    ...drawn.parts,
    "</g>",
    ...text(foot, top + drawn.height + 24, 11, 400, muted || ink),
    "</svg>",
  ].join("\n");
  return { svg, width, height };
}

/** Words broken into lines of a width. */
function wrapped(text: string, width: number, size: number, weight: number): string[] {
  const pen = new OffscreenCanvas(1, 1).getContext("2d") as OffscreenCanvasRenderingContext2D;
  pen.font = `${weight} ${size}px ${FONT}`;
  const out: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const longer = out.length ? `${out.at(-1)} ${word}` : word;
    if (out.length && pen.measureText(longer).width <= width) out[out.length - 1] = longer;
    else out.push(word);
  }
  return out;
}

/** A PNG of twice the size on the page, or as much as a canvas can hold. */
export async function pngOf({ svg, width, height }: { svg: string; width: number; height: number }): Promise<Blob> {
  const scale = Math.min(2, LARGEST / Math.max(width, height));
  const image = new Image();
  // A data URL: a blob's would belong to an origin that a sandboxed frame does not have.
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  (canvas.getContext("2d") as CanvasRenderingContext2D).drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture is too large for this browser."))), "image/png");
  });
}

export async function savePicture(root: HTMLElement, caption: Caption, name: string, format: "svg" | "png"): Promise<void> {
  const drawn = svgOf(root, caption);
  const blob = format === "svg" ? new Blob([drawn.svg], { type: "image/svg+xml" }) : await pngOf(drawn);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${fileName(name)}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A name that every file system takes. */
export function fileName(name: string): string {
  const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  return plain.slice(0, 80) || "figure";
}
