/** Head and foot that documents of results share. */

import type { ComponentChildren } from "preact";
import { shortened } from "../model/numbers.ts";
import { Sentence } from "./common.tsx";

interface AboutProps {
  doc: {
    title: string;
    model: string;
    cautions?: string[];
    settings: Record<string, string | number | boolean | null>;
    versions: Record<string, string>;
    notes: string[];
  };
  children: ComponentChildren;
}

export function Head({ doc, headline, children }: AboutProps & { headline: ComponentChildren }) {
  return (
    <header>
      <p class="title">
        <bdi title={doc.title}>{shortened(doc.title, 200)}</bdi>
      </p>
      <h1>{headline}</h1>
      <p class="lead">{children}</p>
      {doc.cautions?.map((line, i) => (
        <p class="caution" key={i}>
          <bdi>{line}</bdi>
        </p>
      ))}
    </header>
  );
}

/** How to read a page: what holds for its kind, then the document's own notes. */
export function Notes({ notes, children }: { notes: string[]; children?: ComponentChildren }) {
  return (
    <>
      <h2>Reading this page</h2>
      <ul>
        {children}
        {notes.map((note, i) => (
          <li key={i}>
            <Sentence text={note} />
          </li>
        ))}
      </ul>
    </>
  );
}

export function Foot({ doc, children }: Omit<AboutProps, "children"> & { children?: ComponentChildren }) {
  const facts = [["model", doc.model], ...Object.entries(doc.settings), ...Object.entries(doc.versions)].filter(([, value]) => value !== null);
  return (
    <footer>
      <Notes notes={doc.notes}>{children}</Notes>
      <details class="facts">
        <summary>Settings and versions</summary>
        <dl>
          {facts.map(([name, value], i) => (
            <div key={i}>
              <dt>
                <bdi>{shortened(String(name), 80)}</bdi>
              </dt>
              <dd>
                <bdi>{shortened(String(value), 400)}</bdi>
              </dd>
            </div>
          ))}
        </dl>
      </details>
    </footer>
  );
}
