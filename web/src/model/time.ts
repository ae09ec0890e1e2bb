/** The one time axis that all rows of the audio bench share, and which part of it is in view. */

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
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find((size) => size >= smallest) ?? 60;
    const first = Math.ceil(this.t0 / step - 1e-9);
    const last = Math.floor(this.t1 / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  }

  /** The part between two pixels, as an axis of its own. */
  part(left: number, width: number): TimeAxis {
    const most = Math.max(this.width - left, 1);
    return new TimeAxis(this.t(left), this.t(left + Math.min(width, most)), Math.min(width, most));
  }
}

/** Longest stretch of padding that is shown after the clip, in seconds. */
const PADDING = 0.6;

/** Where the shown axis ends: a little after the clip where the model heard padding. */
export function shownEnd(duration: number, window: number): number {
  const length = Math.max(duration, 0.01);
  return length + Math.min(Math.max(window - duration, 0), PADDING, 0.06 * length + 0.05);
}

export interface Span {
  start: number;
  end: number;
}

/** A span between two times in any order, kept inside. */
export function spanBetween(a: number, b: number, end: number): Span {
  const inside = (time: number) => Math.min(Math.max(time, 0), end);
  return { start: inside(Math.min(a, b)), end: inside(Math.max(a, b)) };
}

/** Seconds that two spans share. */
export function shared(a: Span, b: Span): number {
  return Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start));
}
