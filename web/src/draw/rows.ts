/** The canvas rows of the audio bench. Each fills its whole canvas with one time axis' width. */

import { extent } from "../model/arrays.ts";
import type { TimeAxis } from "../model/time.ts";
import { attentionColour, intensityTable, waveColour } from "./palette.ts";

export interface Surface {
  canvas: HTMLCanvasElement;
  axis: TimeAxis;
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

/** `peaks` is (2, bins), minima then maxima, spread evenly over the axis. */
export function drawWaveform(surface: Surface, peaks: Float32Array): void {
  const context = prepare(surface);
  const bins = peaks.length / 2;
  const loudest = Math.max(0.001, ...extent(peaks).map(Math.abs));
  const middle = surface.height / 2;
  context.fillStyle = waveColour(surface.dark);
  for (let x = 0; x < surface.axis.width; x++) {
    const first = Math.floor((x / surface.axis.width) * bins);
    const last = Math.max(first + 1, Math.floor(((x + 1) / surface.axis.width) * bins));
    const low = extent(peaks.subarray(first, last))[0];
    const high = extent(peaks.subarray(bins + first, bins + last))[1];
    const top = middle - (high / loudest) * (middle - 1);
    const bottom = middle - (low / loudest) * (middle - 1);
    context.fillRect(x, Math.min(top, middle - 0.5), 1, Math.max(bottom - top, 1));
  }
}

/** `mel` is (bands, frames), lowest band first; frames past the axis are not drawn. */
export function drawMel(surface: Surface, mel: Float32Array, bands: number, hop: number): void {
  const context = prepare(surface);
  const frames = bands ? mel.length / bands : 0;
  const shown = Math.min(frames, Math.ceil((surface.axis.t1 - surface.axis.t0) / hop));
  if (shown === 0) return;
  const picture = new OffscreenCanvas(shown, bands);
  const pixels = picture.getContext("2d") as OffscreenCanvasRenderingContext2D;
  pixels.putImageData(melPixels(mel, bands, frames, shown, surface.dark), 0, 0);
  context.drawImage(picture, 0, 0, surface.axis.x(surface.axis.t0 + shown * hop), surface.height);
}

function melPixels(mel: Float32Array, bands: number, frames: number, shown: number, dark: boolean): ImageData {
  const [low, high] = extent(mel);
  const table = intensityTable(dark);
  const image = new ImageData(shown, bands);
  for (let band = 0; band < bands; band++) {
    for (let frame = 0; frame < shown; frame++) {
      const share = ((mel[band * frames + frame] ?? low) - low) / (high - low || 1);
      const colour = 4 * Math.round(share * 255);
      image.data.set(table.subarray(colour, colour + 4), 4 * ((bands - 1 - band) * shown + frame));
    }
  }
  return image;
}

/** One row of attention over encoder positions, scaled to its own peak. */
export function drawAttention(surface: Surface, weights: Float32Array, frameSeconds: number): void {
  const context = prepare(surface);
  const peak = Math.max(extent(weights)[1], 1e-9);
  context.fillStyle = attentionColour(surface.dark);
  weights.forEach((weight, position) => {
    const left = surface.axis.x(position * frameSeconds);
    const right = surface.axis.x((position + 1) * frameSeconds);
    const size = (weight / peak) * (surface.height - 2);
    if (left < surface.axis.width) context.fillRect(left, surface.height - size, Math.max(right - left, 0.5), size);
  });
}
