/** A table of coloured cells that mouse and keyboard can walk through; one line below tells the cell's value. */

import type { ComponentChildren, CSSProperties } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Cell {
  text: string;
  tint: number; // 0..1 for "amount", -1..1 for "change"
  told: string; // the sentence for the line below and for screen readers
  marked?: boolean; // stands out from what it is compared with
  taken?: boolean; // in the list of changes
  press?: () => void; // what choosing the cell does, where the grid as a whole has nothing for it
  muted?: boolean; // stands back: not told apart from what it is compared with
}

export interface GridRow {
  head: ComponentChildren;
  cells: (Cell | undefined)[];
}

interface Props {
  label: string;
  scale: "amount" | "change";
  corner: string;
  columns: ComponentChildren[];
  rows: GridRow[];
  narrow?: boolean;
  tokens?: boolean; // columns are tokens, and are marked with them
  current?: number; // the selected column
  chosen?: [number, number] | undefined; // a selected cell: row and column
  pick?: (column: number, row: number) => void;
  look?: (column: number, row: number) => void; // the mouse or the focus is on a cell
}

const STEPS: Record<string, [number, number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

export function tintStyle(tint: number): CSSProperties {
  return { "--amount": Math.abs(tint).toFixed(3) } as CSSProperties;
}

function cellClass(cell: Cell, props: Props, row: number, column: number): string {
  const names = ["cell", props.scale === "change" && cell.tint < 0 ? "falls" : props.scale];
  if (cell.marked) names.push("marked");
  if (cell.taken) names.push("taken");
  if (cell.muted) names.push("muted");
  if (column === props.current) names.push("current");
  if (row === props.chosen?.[0] && column === props.chosen[1]) names.push("chosen-cell");
  return names.join(" ");
}

export function Grid(props: Props) {
  const told = useRef<HTMLOutputElement>(null);
  const table = useRef<HTMLTableElement>(null);
  const [entry, setEntry] = useState<[number, number]>([0, Math.max(props.current ?? 0, 0)]);

  useLayoutEffect(() => {
    const head = table.current?.querySelector<HTMLElement>("thead th.current");
    if (head) bringIntoView(head);
  }, [props.current]);

  const tell = (target: EventTarget | null) => {
    const cell = (target as HTMLElement | null)?.closest<HTMLElement>("[data-at]");
    if (!cell) return;
    if (told.current) told.current.textContent = cell.getAttribute("aria-label");
    const at = place(cell);
    if (at) props.look?.(at[1], at[0]);
  };
  const place = (target: EventTarget | null): [number, number] | undefined => {
    const at = (target as HTMLElement | null)?.closest<HTMLElement>("[data-at]")?.dataset.at;
    return at?.split(",").map(Number) as [number, number] | undefined;
  };
  const choose = (at: [number, number]) => {
    const press = props.rows[at[0]]?.cells[at[1]]?.press;
    if (press) press();
    else props.pick?.(at[1], at[0]);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const at = place(event.target);
    if (!at) return;
    if (event.key === "Enter" || event.key === " ") {
      choose(at);
    } else {
      const step = STEPS[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      const next: [number, number] = [at[0] + step[0], at[1] + step[1]];
      table.current?.querySelector<HTMLElement>(`[data-at="${next.join(",")}"]`)?.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const onFocus = (event: FocusEvent) => {
    tell(event.target);
    const at = place(event.target);
    if (at) setEntry(at);
  };
  const reachable = props.rows[entry[0]]?.cells[entry[1]] ? entry : firstCell(props.rows);

  return (
    <figure class={props.narrow ? "grid narrow" : "grid"}>
      <div class="scroll">
        <table
          role="grid"
          aria-label={props.label}
          ref={table}
          onMouseOver={(event) => tell(event.target)}
          onClick={(event) => {
            const at = place(event.target);
            if (at) choose(at);
          }}
          onKeyDown={onKeyDown}
          onFocusCapture={onFocus}
        >
          <thead>
            <tr>
              <td class="corner">{props.corner}</td>
              {props.columns.map((column, c) => (
                <th scope="col" key={c} data-token={props.tokens ? c : undefined} class={c === props.current ? "current" : ""}>
                  {column}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {props.rows.map((row, r) => (
              <tr key={r}>
                <th scope="row">{row.head}</th>
                {row.cells.map((cell, c) =>
                  cell ? (
                    <td
                      key={c}
                      class={cellClass(cell, props, r, c)}
                      style={tintStyle(cell.tint)}
                      data-at={`${r},${c}`}
                      data-token={props.tokens ? c : undefined}
                      tabIndex={r === reachable[0] && c === reachable[1] ? 0 : -1}
                      aria-label={cell.told}
                      aria-selected={props.chosen ? r === props.chosen[0] && c === props.chosen[1] : c === props.current}
                    >
                      <bdi>{cell.text}</bdi>
                    </td>
                  ) : (
                    <td key={c} class="missing" />
                  ),
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <output class="told" ref={told} />
    </figure>
  );
}

/** Scroll the grid sideways, never the page, until a column head shows. */
function bringIntoView(head: HTMLElement): void {
  const box = head.closest<HTMLElement>(".scroll");
  if (!box) return;
  const frame = box.getBoundingClientRect();
  const own = head.getBoundingClientRect();
  const hidden = own.left < frame.left + 60 || own.right > frame.right;
  if (hidden) box.scrollLeft += own.left - frame.left - frame.width * 0.3;
}

function firstCell(rows: GridRow[]): [number, number] {
  const row = rows.findIndex(({ cells }) => cells.some(Boolean));
  return [row, row < 0 ? -1 : (rows[row]?.cells.findIndex(Boolean) ?? -1)];
}
