/** The canvas rows of the audio bench. Each fills its canvas with the part of the time axis that is in view. */

import { extent } from "../model/arrays.ts";
import type { TimeAxis } from "../model/time.ts";
import { againstColour, attentionColour, forColour, intensityTable, lineColour, riskColour, waveColour } from "./palette.ts";

export interface Surface {
  canvas: HTMLCanvasElement;
  axis: TimeAxis; // what is in view
  height: number; // CSS pixels
  dark: boolean;
}

/** A cleared context that draws in CSS pixels. */
function prepare({ canvas, axis, height }: Surface): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(axis.width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${axis.width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.setTransform(canvas.width / axis.width, 0, 0, canvas.height / height, 0, 0);
  return context;
}

/** `peaks` is (2, bins), minima then maxima, spread evenly over `duration` seconds; without one, over what is in view. */
export function drawWaveform(
  surface: Surface,
  peaks: Float32Array,
  duration = surface.axis.t1,
  loudest = Math.max(0.001, ...extent(peaks).map(Math.abs)),
): void {
  const context = prepare(surface);
  const bins = peaks.length / 2;
  const { axis } = surface;
  const binAt = (x: number) => Math.floor(((axis.t0 + (x / axis.width) * (axis.t1 - axis.t0)) / duration) * bins);
  const middle = surface.height / 2;
  context.fillStyle = waveColour(surface.dark);
  for (let x = 0; x < axis.width; x++) {
    const first = binAt(x);
    if (first >= bins) break;
    const last = Math.min(Math.max(first + 1, binAt(x + 1)), bins);
    const low = extent(peaks.subarray(first, last))[0];
    const high = extent(peaks.subarray(bins + first, bins + last))[1];
    const top = middle - (high / loudest) * (middle - 1);
    const bottom = middle - (low / loudest) * (middle - 1);
    context.fillRect(x, Math.min(top, middle - 0.5), 1, Math.max(bottom - top, 1));
  }
}

/** The whole `mel` (bands, frames), lowest band first, as a picture with one pixel a number. */
export function melPicture(mel: Float32Array, bands: number, dark: boolean): OffscreenCanvas | undefined {
  const frames = bands ? mel.length / bands : 0;
  if (frames === 0) return undefined;
  const [low, high] = extent(mel);
  const table = new Uint32Array(intensityTable(dark).buffer);
  const image = new ImageData(frames, bands);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low || 1);
  for (let band = 0; band < bands; band++) {
    const row = (bands - 1 - band) * frames;
    for (let frame = 0; frame < frames; frame++) {
      pixels[row + frame] = table[Math.round(((mel[band * frames + frame] ?? low) - low) * scale)] ?? 0;
    }
  }
  const picture = new OffscreenCanvas(frames, bands);
  (picture.getContext("2d") as OffscreenCanvasRenderingContext2D).putImageData(image, 0, 0);
  return picture;
}

/** `mel` (bands, frames), lowest band first, where it is drawn once; what is drawn often keeps its picture. */
export function drawMel(surface: Surface, mel: Float32Array, bands: number, hop: number): void {
  drawPicture(surface, melPicture(mel, bands, surface.dark), hop);
}

/** The part of a picture that is in view; one pixel of it lasts `hop` seconds. */
export function drawPicture(surface: Surface, picture: OffscreenCanvas | undefined, hop: number): void {
  const context = prepare(surface);
  if (!picture) return;
  const { axis } = surface;
  const first = axis.t0 / hop;
  const count = Math.min((axis.t1 - axis.t0) / hop, picture.width - first);
  if (count <= 0) return;
  const right = axis.x(axis.t0 + count * hop);
  context.imageSmoothingEnabled = count > axis.width; // pixels are numbers: near, they are shown as they are
  context.drawImage(picture, first, 0, count, picture.height, 0, 0, right, surface.height);
}

const LABEL = 18; // pixels on top of a row of columns, where its name stands

/** Columns of equal length from 0 s on, upwards, scaled to `peak`. */
export function drawColumns(surface: Surface, values: Float32Array, seconds: number, peak: number, colour: string): void {
  const context = prepare(surface);
  const { axis } = surface;
  context.fillStyle = colour;
  const first = Math.max(0, Math.floor(axis.t0 / seconds));
  const last = Math.min(values.length, Math.ceil(axis.t1 / seconds));
  for (let i = first; i < last; i++) {
    const left = axis.x(i * seconds);
    const size = Math.max(0, (values[i] ?? 0) / peak) * (surface.height - LABEL);
    context.fillRect(left, surface.height - size, Math.max(axis.x((i + 1) * seconds) - left, 0.5), size);
  }
}

export function drawAttention(surface: Surface, weights: Float32Array, seconds: number): void {
  drawColumns(surface, weights, seconds, Math.max(extent(weights)[1], 1e-9), attentionColour(surface.dark));
}

/** Spans that speak for something, above the middle, or against it, below; scaled to the largest density. */
export function drawSigned(surface: Surface, spans: [number, number][], values: Float32Array): void {
  const context = prepare(surface);
  const { axis, height, dark } = surface;
  const dense = spans.map(([start, end], i) => (values[i] ?? 0) / Math.max(end - start, 1e-3)); // areas are logits
  const peak = Math.max(1e-9, ...dense.map(Math.abs));
  const [low, high] = extent(Float32Array.from(dense));
  const middle = Math.min(Math.max((height - 2) * (Math.max(high, 0) / (Math.max(high, 0) - Math.min(low, 0) || peak)), 8), height - 8);
  const scale = Math.min(middle / Math.max(high, 1e-9), (height - middle) / Math.max(-low, 1e-9));
  context.fillStyle = lineColour(dark);
  context.fillRect(0, middle, axis.width, 0.5);
  spans.forEach(([start, end], i) => {
    const size = (dense[i] ?? 0) * scale;
    const left = axis.x(start);
    context.fillStyle = size < 0 ? againstColour(dark) : forColour(dark);
    context.fillRect(left, Math.min(middle, middle - size), Math.max(axis.x(end) - left - 0.5, 0.5), Math.abs(size));
  });
}

export interface Step {
  start: number;
  end: number;
  value: number; // 0..1
  alarm: boolean;
}

/** Steps from 0 to 1 with the line from which on they count. */
export function drawSteps(surface: Surface, steps: Step[], threshold: number): void {
  const context = prepare(surface);
  const { axis, height, dark } = surface;
  const y = (value: number) => height - 1 - value * (height - 3);
  for (const { start, end, value, alarm } of steps) {
    const left = axis.x(start);
    context.globalAlpha = alarm ? 0.9 : 0.45;
    context.fillStyle = riskColour(dark);
    context.fillRect(left, y(value), Math.max(axis.x(end) - left, 1), height - y(value));
  }
  context.globalAlpha = 1;
  context.strokeStyle = againstColour(dark);
  context.setLineDash([5, 4]);
  context.beginPath();
  context.moveTo(0, y(threshold));
  context.lineTo(axis.width, y(threshold));
  context.stroke();
}
