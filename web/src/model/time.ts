/** The one time axis that waveform, mel, words and attention share. */

export class TimeAxis {
  constructor(
    readonly t0: number,
    readonly t1: number,
    readonly width: number,
  ) {}

  /** Pixels from the left edge. */
  x(seconds: number): number {
    return ((seconds - this.t0) / (this.t1 - this.t0)) * this.width;
  }

  /** Seconds at a pixel, kept inside the axis. */
  t(x: number): number {
    const share = Math.min(Math.max(x / this.width, 0), 1);
    return this.t0 + share * (this.t1 - this.t0);
  }

  /** Round times at least `gap` pixels apart. */
  ticks(gap: number): number[] {
    const smallest = (gap / this.width) * (this.t1 - this.t0);
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find((size) => size >= smallest) ?? 60;
    const first = Math.ceil(this.t0 / step - 1e-9);
    const last = Math.floor(this.t1 / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  }
}
