/** Small pieces that several panels use. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { ExplainDoc } from "../contract.ts";
import { visible } from "../model/numbers.ts";

export interface PanelProps {
  doc: ExplainDoc;
  token: number; // the selected token, -1 when none was written
  select: (token: number) => void;
}

export function Panel(props: { title: ComponentChildren; lead: ComponentChildren; children: ComponentChildren; name: string }) {
  const id = useId();
  return (
    <section class={`panel ${props.name}`} aria-labelledby={id} data-testid={props.name}>
      <h2 id={id}>{props.title}</h2>
      <p class="lead">{props.lead}</p>
      {props.children}
    </section>
  );
}

/** Text from the document, quoted, kept from reordering its neighbours. */
export function Quoted({ text }: { text: string }) {
  return (
    <q class="quoted" title={text}>
      <bdi>{visible(text)}</bdi>
    </q>
  );
}

/** A sentence of the document, in which `backticks` hold what is typed. */
export function Sentence({ text }: { text: string }) {
  return <bdi>{text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? <code key={i}>{part}</code> : part))}</bdi>;
}

export function useDark(): boolean {
  const [query] = useState(() => matchMedia("(prefers-color-scheme: dark)"));
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const follow = () => setDark(query.matches);
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, [query]);
  return dark;
}

/** Called when the address changes under the page: by Back, or by a notebook that sets what is chosen. */
export function useAddress(follow: () => void): void {
  const latest = useRef(follow);
  latest.current = follow;
  useEffect(() => {
    const onHash = () => latest.current();
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);
}
