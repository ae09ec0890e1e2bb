/** What a figure is drawn with: the part of a canvas' context that can be written down as SVG, too. */

/** Both a `CanvasRenderingContext2D` and `SvgPen` are one. Draw through this, and the same function makes screen and file. */
export type Pen = Pick<
  CanvasRenderingContext2D,
  | "fillStyle"
  | "strokeStyle"
  | "lineWidth"
  | "lineCap"
  | "globalAlpha"
  | "font"
  | "textAlign"
  | "textBaseline"
  | "save"
  | "restore"
  | "translate"
  | "fillRect"
  | "strokeRect"
  | "beginPath"
  | "moveTo"
  | "lineTo"
  | "quadraticCurveTo"
  | "bezierCurveTo"
  | "arc"
  | "rect"
  | "roundRect"
  | "closePath"
  | "fill"
  | "stroke"
  | "setLineDash"
  | "fillText"
> & {
  /** Pixels that have no vector form, such as a spectrogram, stretched over a rectangle. */
  drawImage(picture: HTMLCanvasElement | OffscreenCanvas, x: number, y: number, width: number, height: number): void;
};

const STYLE = ["fillStyle", "strokeStyle", "lineWidth", "lineCap", "globalAlpha", "font", "textAlign", "textBaseline"] as const;
const ANCHORS: Record<string, string> = { center: "middle", right: "end", end: "end" };
const BASELINES: Record<string, string> = { middle: "central", top: "hanging", hanging: "hanging", bottom: "text-after-edge" };

/** Writes down what is drawn as SVG elements, in `parts`. */
export class SvgPen implements Pen {
  readonly parts: string[] = [];
  fillStyle: Pen["fillStyle"] = "#000";
  strokeStyle: Pen["strokeStyle"] = "#000";
  lineWidth = 1;
  lineCap: CanvasLineCap = "butt";
  globalAlpha = 1;
  font = "10px sans-serif";
  textAlign: CanvasTextAlign = "start";
  textBaseline: CanvasTextBaseline = "alphabetic";
  private dashes: number[] = [];
  private path = "";
  private shift: [number, number] = [0, 0];
  private readonly kept: [Record<string, unknown>, number[], [number, number]][] = [];

  save(): void {
    this.kept.push([Object.fromEntries(STYLE.map((name) => [name, this[name]])), this.dashes, this.shift]);
  }

  restore(): void {
    const last = this.kept.pop();
    if (!last) return;
    Object.assign(this, last[0]);
    [, this.dashes, this.shift] = last;
  }

  translate(x: number, y: number): void {
    this.shift = [this.shift[0] + x, this.shift[1] + y];
  }

  fillRect(x: number, y: number, width: number, height: number): void {
    this.parts.push(`<rect ${this.box(x, y, width, height)} ${this.filled()}/>`);
  }

  strokeRect(x: number, y: number, width: number, height: number): void {
    this.parts.push(`<rect ${this.box(x, y, width, height)} ${this.stroked()}/>`);
  }

  beginPath(): void {
    this.path = "";
  }

  moveTo(x: number, y: number): void {
    this.path += `M${this.at(x, y)}`;
  }

  lineTo(x: number, y: number): void {
    this.path += `${this.path ? "L" : "M"}${this.at(x, y)}`;
  }

  quadraticCurveTo(cx: number, cy: number, x: number, y: number): void {
    this.path += `Q${this.at(cx, cy)} ${this.at(x, y)}`;
  }

  bezierCurveTo(ax: number, ay: number, bx: number, by: number, x: number, y: number): void {
    this.path += `C${this.at(ax, ay)} ${this.at(bx, by)} ${this.at(x, y)}`;
  }

  arc(x: number, y: number, radius: number, from: number, to: number, back = false): void {
    const point = (angle: number) => this.at(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    const turn = to - from;
    const sweep = back ? 0 : 1;
    // An SVG arc cannot be a whole circle: it is drawn as two halves.
    const stops = Math.abs(turn) >= 2 * Math.PI - 1e-9 ? [from + Math.PI * (back ? -1 : 1), from + 2 * Math.PI * (back ? -1 : 1)] : [to];
    const large = stops.length === 1 && (((back ? -turn : turn) + 4 * Math.PI) % (2 * Math.PI)) > Math.PI ? 1 : 0;
    this.path += `${this.path ? "L" : "M"}${point(from)}`;
    for (const stop of stops) this.path += `A${short(radius)} ${short(radius)} 0 ${large} ${sweep} ${point(stop)}`;
  }

  rect(x: number, y: number, width: number, height: number): void {
    this.path += `M${this.at(x, y)}h${short(width)}v${short(height)}h${short(-width)}Z`;
  }

  roundRect(x: number, y: number, width: number, height: number, radii?: Parameters<Pen["roundRect"]>[4]): void {
    const r = Math.min(typeof radii === "number" ? radii : 0, width / 2, height / 2);
    const corner = (dx: number, dy: number) => `a${short(r)} ${short(r)} 0 0 1 ${short(dx)} ${short(dy)}`;
    this.path += `M${this.at(x + r, y)}h${short(width - 2 * r)}${corner(r, r)}v${short(height - 2 * r)}${corner(-r, r)}`;
    this.path += `h${short(2 * r - width)}${corner(-r, -r)}v${short(2 * r - height)}${corner(r, -r)}Z`;
  }

  closePath(): void {
    this.path += "Z";
  }

  fill(): void {
    this.parts.push(`<path d="${this.path}" ${this.filled()}/>`);
  }

  stroke(): void {
    this.parts.push(`<path d="${this.path}" ${this.stroked()}/>`);
  }

  setLineDash(dashes: Iterable<number>): void {
    this.dashes = [...dashes];
  }

  fillText(text: string, x: number, y: number): void {
    const anchor = ANCHORS[this.textAlign] ?? "start";
    const baseline = BASELINES[this.textBaseline] ?? "alphabetic";
    this.parts.push(
      `<text x="${short(x + this.shift[0])}" y="${short(y + this.shift[1])}" text-anchor="${anchor}" dominant-baseline="${baseline}" ` +
        `style="font:${escaped(this.font)}" ${this.filled()}>${escaped(text)}</text>`,
    );
  }

  drawImage(picture: HTMLCanvasElement | OffscreenCanvas, x: number, y: number, width: number, height: number): void {
    this.parts.push(
      `<image ${this.box(x, y, width, height)} preserveAspectRatio="none" style="image-rendering:pixelated" href="${pngUrl(picture)}"/>`,
    );
  }

  private at(x: number, y: number): string {
    return `${short(x + this.shift[0])} ${short(y + this.shift[1])}`;
  }

  private box(x: number, y: number, width: number, height: number): string {
    const [left, top] = [Math.min(x, x + width), Math.min(y, y + height)];
    return `x="${short(left + this.shift[0])}" y="${short(top + this.shift[1])}" width="${short(Math.abs(width))}" height="${short(Math.abs(height))}"`;
  }

  private filled(): string {
    return `fill="${escaped(String(this.fillStyle))}"${this.opacity()}`;
  }

  private stroked(): string {
    const dashes = this.dashes.length ? ` stroke-dasharray="${this.dashes.map(short).join(" ")}"` : "";
    const cap = this.lineCap === "butt" ? "" : ` stroke-linecap="${this.lineCap}"`;
    return `fill="none" stroke="${escaped(String(this.strokeStyle))}" stroke-width="${short(this.lineWidth)}"${cap}${dashes}${this.opacity()}`;
  }

  private opacity(): string {
    return this.globalAlpha === 1 ? "" : ` opacity="${short(this.globalAlpha)}"`;
  }
}

/** A canvas' pixels as a data URL. */
export function pngUrl(picture: HTMLCanvasElement | OffscreenCanvas): string {
  if (picture instanceof HTMLCanvasElement) return picture.toDataURL("image/png");
  const copy = document.createElement("canvas"); // only an element gives its pixels without waiting
  copy.width = picture.width;
  copy.height = picture.height;
  (copy.getContext("2d") as CanvasRenderingContext2D).drawImage(picture, 0, 0);
  return copy.toDataURL("image/png");
}

/** Text that is safe in XML, in attributes too; characters that XML cannot hold are left out. */
export function escaped(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "")
    .replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

export function short(value: number): string {
  return String(Math.round(value * 100) / 100);
}
