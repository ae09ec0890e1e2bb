/** Strokes of the graph: bands, edges and glyphs, on canvases that lie upon each other. */

import type { Graph } from "../model/graph.ts";
import type { Layout } from "../model/graph-layout.ts";
import { type GraphColours, graphColours } from "./palette.ts";
import type { Pen } from "./pen.ts";
import { redrawable } from "./serialise.ts";

export interface Scene {
  graph: Graph;
  layout: Layout;
  node: Uint8Array; // shown or not
  edge: Uint8Array;
  marked: Uint8Array | undefined; // nodes that only this graph has
  dark: boolean;
}

const CONNECTIONS = 150; // of one node, into it and out of it
const FAINT = 1200; // edges drawn when nothing is chosen: what is beyond is a wash that tells nothing

/** A cleared context in CSS pixels. */
function prepare(canvas: HTMLCanvasElement, { width, height }: Layout): CanvasRenderingContext2D {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.globalAlpha = 1;
  return context;
}

/** Everything that stays while the pointer moves. */
export function drawBase(canvas: HTMLCanvasElement, scene: Scene): void {
  draw(canvas, scene, (pen) => paintBase(pen, scene));
}

function draw(canvas: HTMLCanvasElement, scene: Scene, paint: (pen: Pen) => void): void {
  paint(prepare(canvas, scene.layout));
  redrawable(canvas, paint);
}

function paintBase(context: Pen, scene: Scene): void {
  const colours = graphColours(scene.dark);
  drawBands(context, scene.layout, colours);
  const strongest = scene.graph.strongest.filter((edge) => scene.edge[edge]).subarray(0, FAINT);
  for (const edge of strongest.reverse()) drawEdge(context, scene, edge, colours, 0.05 + 0.4 * Math.min(1, Math.abs(scene.graph.share[edge]!) * 4), 0.7);
  for (let i = 0; i < scene.graph.count; i++) if (scene.node[i]) drawGlyph(context, scene, i, colours);
}

/** What is chosen with its edges, and rings around what is pinned or found. */
export function drawChosen(canvas: HTMLCanvasElement, scene: Scene, chosen: number, ringed: ReadonlySet<number>): void {
  draw(canvas, scene, (pen) => paintChosen(pen, scene, chosen, ringed));
}

function paintChosen(context: Pen, scene: Scene, chosen: number, ringed: ReadonlySet<number>): void {
  const colours = graphColours(scene.dark);
  if (chosen >= 0) drawConnections(context, scene, chosen, colours);
  for (const i of ringed) if (scene.node[i]) ring(context, scene.layout, i, colours.ink, 2, 1.2);
  if (chosen >= 0) ring(context, scene.layout, chosen, colours.accent, 3.5, 2.4);
}

/** What the pointer is on, above everything else; drawn at every move, so it draws nothing more. */
export function drawHovered(canvas: HTMLCanvasElement, scene: Scene, hovered: number): void {
  const context = prepare(canvas, scene.layout);
  const colours = graphColours(scene.dark);
  if (hovered < 0) return;
  drawConnections(context, scene, hovered, colours);
  ring(context, scene.layout, hovered, colours.accent, 3.5, 1.4);
}

function drawConnections(context: Pen, scene: Scene, i: number, colours: GraphColours): void {
  const { graph } = scene;
  const sides = [graph.into[i]!, graph.from[i]!].map((edges) => edges.filter((edge) => scene.edge[edge]).subarray(0, CONNECTIONS).reverse());
  for (const edge of sides.flatMap((edges) => [...edges])) {
    const size = Math.abs(graph.share[edge]!);
    drawEdge(context, scene, edge, colours, Math.min(0.9, 0.2 + size * 5), Math.min(4.5, 0.6 + 18 * size));
    drawGlyph(context, scene, graph.source[edge] === i ? graph.target[edge]! : graph.source[edge]!, colours);
  }
}

function drawBands(context: Pen, layout: Layout, colours: GraphColours): void {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  layout.bands.forEach((band, i) => {
    const border = i > 0 && layout.bands[i - 1]!.stack !== band.stack;
    context.strokeStyle = border ? colours.muted : colours.line;
    context.lineWidth = border ? 1 : 0.6;
    context.beginPath();
    context.moveTo(0, band.y - band.height / 2);
    context.lineTo(layout.width, band.y - band.height / 2);
    context.stroke();
    context.fillStyle = band.stack === "hearing" ? colours.hearing : colours.muted;
    if (band.height >= 11) context.fillText(band.name, 6, band.y);
  });
}

function drawEdge(context: Pen, { graph, layout }: Scene, edge: number, colours: GraphColours, alpha: number, width: number): void {
  const [a, b] = [graph.source[edge]!, graph.target[edge]!];
  const middle = (layout.y[a]! + layout.y[b]!) / 2;
  context.globalAlpha = alpha;
  context.strokeStyle = graph.share[edge]! < 0 ? colours.against : colours.for;
  context.lineWidth = width;
  context.setLineDash(graph.share[edge]! < 0 ? [4, 3] : []);
  context.beginPath();
  context.moveTo(layout.x[a]!, layout.y[a]!);
  context.bezierCurveTo(layout.x[a]!, middle, layout.x[b]!, middle, layout.x[b]!, layout.y[b]!);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function drawGlyph(context: Pen, scene: Scene, i: number, colours: GraphColours): void {
  const { graph, layout } = scene;
  const node = graph.node(i);
  const [x, y, r] = [layout.x[i]!, layout.y[i]!, layout.radius[i]!];
  const hears = graph.data.streams.some((stream) => stream.hears && stream.name === node.stream);
  context.fillStyle = hears || node.kind === "frame" || node.kind === "projector" ? colours.hearing : node.kind === "feature" || node.kind === "target" ? colours.writing : colours.input;
  context.strokeStyle = colours.paper;
  context.lineWidth = 1;
  context.beginPath();
  if (node.kind === "feature") context.arc(x, y, r, 0, 7);
  else if (node.kind === "frame") bar(context, layout, node.segment ?? 0, y);
  else if (node.kind === "target") context.roundRect(x - 9, y - 7, 18, 14, 5);
  else if (node.kind === "error") context.moveTo(x, y - r - 1), context.lineTo(x + r + 1, y), context.lineTo(x, y + r + 1), context.lineTo(x - r - 1, y), context.closePath();
  else if (node.kind === "bias") context.moveTo(x, y - r), context.lineTo(x + r, y + r), context.lineTo(x - r, y + r), context.closePath();
  else context.rect(x - r, y - r, 2 * r, 2 * r);
  context.fill();
  context.stroke();
  if (scene.marked?.[i]) {
    context.strokeStyle = colours.ink;
    context.lineWidth = 1.6;
    context.stroke();
  }
}

/** A stretch of sound is as long as it lasts. */
function bar(context: Pen, layout: Layout, segment: number, y: number): void {
  const { x, width } = layout.segments[segment]!;
  context.roundRect(x - width / 2, y - 5, width, 10, 3);
}

function ring(context: Pen, layout: Layout, i: number, colour: string, gap: number, width: number): void {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.arc(layout.x[i]!, layout.y[i]!, Math.max(layout.radius[i]!, 4) + gap, 0, 7);
  context.stroke();
}
