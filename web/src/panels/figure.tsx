/**
 * A figure of the page with its "Save picture".
 *
 * Put it around what is drawn, whatever that is: tables, boxes and texts are written down as SVG from the page itself, inline
 * SVG is taken as it is, a canvas is kept as a bitmap. For a canvas as vectors draw it through `Pen` (`draw/pen.ts`) and say so
 * once: `redrawable(canvas, (pen) => draw(pen, ...))` (`draw/serialise.ts`). Whatever is marked `data-picture="no"`, and every
 * input, stays out of the picture. Model and recording come from the page; nobody has to pass them.
 */

import type { ComponentChildren } from "preact";
import { createContext } from "preact";
import { useContext, useRef, useState } from "preact/hooks";
import type { Doc } from "../host.ts";
import { savePicture } from "../draw/export.ts";
import { shortened } from "../model/numbers.ts";

/** What all figures of the page are of, said at the foot of every saved picture. */
export const SourceContext = createContext("");

export function sourceOf(doc: Doc): string {
  const model = "model" in doc ? doc.model : undefined;
  const name = typeof model === "string" ? model : model?.name;
  const title = "title" in doc ? doc.title : "";
  return shortened(name && !title.includes(name) ? `${title} · ${name}` : title, 200);
}

interface Props {
  name: string; // of the file
  title: string; // above the saved picture
  about: string; // what it shows, in one sentence
  children: ComponentChildren;
}

export function Figure({ name, title, about, children }: Props) {
  const drawn = useRef<HTMLDivElement>(null);
  const source = useContext(SourceContext);
  return (
    <div class="figured" data-figure={name}>
      <div class="drawn" ref={drawn}>
        {children}
      </div>
      <SavePicture save={(format) => savePicture(drawn.current as HTMLElement, { title, about, source }, name, format)} />
    </div>
  );
}

function SavePicture({ save }: { save: (format: "svg" | "png") => Promise<void> }) {
  const [trouble, setTrouble] = useState("");
  const start = (format: "svg" | "png") => {
    setTrouble("");
    save(format).catch((error: unknown) => setTrouble(error instanceof Error ? error.message : "It could not be saved."));
  };
  return (
    <details class="save" data-picture="no">
      <summary>Save picture</summary>
      <button type="button" onClick={() => start("png")}>
        PNG
      </button>{" "}
      <button type="button" onClick={() => start("svg")}>
        SVG
      </button>
      {trouble && <span role="alert"> {trouble}</span>}
    </details>
  );
}
