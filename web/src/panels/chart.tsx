/** Lines over layers with bands; mouse and arrow keys walk along x, and one line below tells the values. */

import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { decimal } from "../model/numbers.ts";

export interface Point {
  x: number;
  y: number;
  low?: number;
  high?: number;
}

export interface Line {
  name: string;
  points: Point[];
  colour: number; // of the palette, 0 to 4
  dash?: string | undefined;
  thin?: boolean;
}

interface Props {
  label: string; // for screen readers
  lines: Line[];
  xName: string;
  yName: string;
  domain?: [number, number] | undefined; // of y; else what the points need
  ranks?: boolean; // y is a rank: logarithmic, 0 on top
  write?: (y: number) => string;
  height?: number;
}

const ROOM = { left: 52, right: 14, top: 10, bottom: 38 };
export const DASHES = [undefined, "7 4", "2 3", "8 3 2 3", "1 5"];

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const height = props.height ?? 260;
  const [at, setAt] = useState<number | undefined>(undefined);
  const name = useId();
  const layers = [...new Set(props.lines.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
  const [first, last] = [layers[0] ?? 0, layers.at(-1) ?? 1];
  const y = scaleOf(props);
  const px = (x: number) => ROOM.left + ((x - first) / Math.max(last - first, 1)) * (width - ROOM.left - ROOM.right);
  const py = (value: number) => ROOM.top + (1 - y.share(value)) * (height - ROOM.top - ROOM.bottom);
  const walk = (event: KeyboardEvent) => {
    const here = at === undefined ? -1 : layers.indexOf(at);
    const next = { ArrowRight: here + 1, ArrowLeft: Math.max(here - 1, 0), Home: 0, End: layers.length - 1 }[event.key];
    if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    setAt(layers[Math.min(next, layers.length - 1)]);
    event.preventDefault();
    event.stopPropagation();
  };
  const follow = (event: MouseEvent) => {
    const left = (event.currentTarget as Element).getBoundingClientRect().left;
    const x = event.clientX - left;
    setAt(layers.reduce<number | undefined>((best, layer) => (best === undefined || Math.abs(px(layer) - x) < Math.abs(px(best) - x) ? layer : best), undefined));
  };
  const write = props.write ?? decimal;
  return (
    <div class="chart" ref={box}>
      <svg
        width={width}
        height={height}
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        tabindex={0}
        aria-label={`${props.label}. Arrow keys walk along the layers.`}
        aria-describedby={name}
        onKeyDown={walk}
        onMouseMove={follow}
        onMouseLeave={() => setAt(undefined)}
        onBlur={() => setAt(undefined)}
      >
        <g class="axis">
          {y.ticks.map((tick) => (
            <g key={tick}>
              <line x1={ROOM.left} x2={width - ROOM.right} y1={py(tick)} y2={py(tick)} />
              <text x={ROOM.left - 8} y={py(tick)} text-anchor="end" dominant-baseline="central">
                {y.write(tick)}
              </text>
            </g>
          ))}
          {every(layers, Math.floor((width - 60) / 34)).map((layer) => (
            <text key={layer} x={px(layer)} y={height - ROOM.bottom + 16} text-anchor="middle">
              {layer}
            </text>
          ))}
          <text class="name" x={(ROOM.left + width - ROOM.right) / 2} y={height - 4} text-anchor="middle">
            {props.xName}
          </text>
          <text class="name" transform={`translate(12 ${(height - ROOM.bottom) / 2}) rotate(-90)`} text-anchor="middle">
            {props.yName}
          </text>
        </g>
        {props.lines.map((line, i) => (
          <g key={i} class={`chart-line series-${line.colour}${line.thin ? " thin" : ""}`}>
            <path class="band" d={bandOf(line.points, px, py)} />
            <path class="stroke" d={pathOf(line.points, px, py)} stroke-dasharray={line.dash} />
            {!line.dash && line.points.length <= 40 && line.points.map((point) => <circle key={point.x} cx={px(point.x)} cy={py(point.y)} r={line.thin ? 2 : 3} />)}
          </g>
        ))}
        {at !== undefined && <line class="here" data-picture="no" x1={px(at)} x2={px(at)} y1={ROOM.top} y2={height - ROOM.bottom} />}
      </svg>
      <output class="told" id={name}>
        {at !== undefined && `layer ${at}: ${props.lines.flatMap((line) => valueAt(line, at, write)).join(" · ")}`}
      </output>
    </div>
  );
}

function valueAt(line: Line, layer: number, write: (y: number) => string): string[] {
  const point = line.points.find((one) => one.x === layer);
  if (!point) return [];
  const interval = point.low !== undefined && point.high !== undefined ? ` (${write(point.low)} to ${write(point.high)})` : "";
  return [`${line.name} ${write(point.y)}${interval}`];
}

interface Scale {
  share: (value: number) => number; // 0 at the bottom, 1 on top
  ticks: number[];
  write: (value: number) => string;
}

function scaleOf({ lines, domain, ranks }: Props): Scale {
  const values = lines.flatMap((line) => line.points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]));
  if (ranks) {
    const top = Math.max(9, ...values);
    const ticks = [0, 9, 99, 999, 9_999, 99_999].filter((rank) => rank <= top);
    return { share: (rank) => 1 - Math.log10(1 + rank) / Math.log10(1 + top), ticks, write: (rank) => (rank === 0 ? "0" : rank.toLocaleString("en")) };
  }
  const [low, high] = domain ?? [Math.min(0, ...values), Math.max(0, ...values)];
  const size = high - low || 1;
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100].find((one) => size / one <= 6) ?? size / 5;
  const begin = Math.ceil(low / step - 1e-9);
  const ticks = Array.from({ length: Math.floor(high / step + 1e-9) - begin + 1 }, (_, i) => (begin + i) * step);
  return {
    share: (value) => Math.min(Math.max((value - low) / size, -0.02), 1.02),
    ticks,
    write: (value) => String(Number(value.toFixed(2))).replace("-", "−"),
  };
}

type Place = (value: number) => number;

/** A line with gaps where a layer is missing. */
function pathOf(points: Point[], px: Place, py: Place): string {
  return points.map((point, i) => `${i > 0 && point.x - (points[i - 1] as Point).x <= 1 ? "L" : "M"}${px(point.x).toFixed(1)} ${py(point.y).toFixed(1)}`).join("");
}

function bandOf(points: Point[], px: Place, py: Place): string {
  const banded = points.filter((point) => point.low !== undefined && point.high !== undefined);
  if (banded.length < 2) return "";
  const upper = banded.map((point) => `${px(point.x).toFixed(1)} ${py(point.high as number).toFixed(1)}`);
  const lower = banded.toReversed().map((point) => `${px(point.x).toFixed(1)} ${py(point.low as number).toFixed(1)}`);
  return `M${[...upper, ...lower].join("L")}Z`;
}

function every(layers: number[], most: number): number[] {
  const step = Math.ceil(layers.length / Math.max(most, 2));
  return layers.filter((_, i) => i % step === 0);
}

function useWidth(box: { current: HTMLDivElement | null }): number {
  const [width, setWidth] = useState(640);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => setWidth(Math.max(240, Math.min(element.clientWidth, 860)));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return width;
}
