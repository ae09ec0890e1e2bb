/**
 * What the pointer is on, shared by everything on the page: a time, a token, a feature.
 *
 * Hovering redraws nothing. Whatever belongs to a token or feature says so (`data-token`, `data-feature`), and is marked by a class
 * while it is meant; what has to be moved over a time asks to be told.
 */

import type { ExplainDoc } from "./contract.ts";

export interface Meant {
  time?: number | undefined; // seconds in the window
  token?: number | undefined;
  feature?: string | undefined; // see `featureKey`
}

const NOTHING: Meant = {};

export class Linked {
  meant: Meant = NOTHING;
  private readonly followers = new Set<(meant: Meant) => void>();

  /** `tokenAt` finds the token that is heard at a time. */
  constructor(private readonly tokenAt: (seconds: number) => number | undefined) {}

  follow(follower: (meant: Meant) => void): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }

  /** A time means the token that is heard there, too; and a feature, where it is one's own row or node. */
  at(time: number, feature?: string): void {
    this.mean({ time, token: this.tokenAt(time), feature });
  }

  mean(meant: Meant): void {
    const same = meant.time === this.meant.time && meant.token === this.meant.token && meant.feature === this.meant.feature;
    if (same) return;
    const before = this.meant;
    this.meant = meant;
    if (before.token !== meant.token) mark("token", before.token, meant.token);
    if (before.feature !== meant.feature) mark("feature", before.feature, meant.feature);
    for (const follower of this.followers) follower(meant);
  }

  nothing(): void {
    this.mean(NOTHING);
  }

  /** Follow the pointer and the focus over everything inside that belongs to a token or feature. */
  watch(root: HTMLElement): () => void {
    const over = (event: Event) => {
      const target = event.target as HTMLElement;
      if (target.closest("[data-timed], [data-linking]")) return; // the time axis and the graph say themselves what is meant
      const token = target.closest<HTMLElement>("main [data-token]")?.dataset.token;
      const feature = target.closest<HTMLElement>("[data-feature]")?.dataset.feature;
      this.mean({ token: token === undefined ? undefined : Number(token), feature });
    };
    const out = () => this.nothing();
    root.addEventListener("pointerover", over);
    root.addEventListener("focusin", over);
    root.addEventListener("pointerleave", out);
    return () => {
      root.removeEventListener("pointerover", over);
      root.removeEventListener("focusin", over);
      root.removeEventListener("pointerleave", out);
    };
  }
}

function mark(kind: "token" | "feature", before: number | string | undefined, now: number | string | undefined): void {
  const every = (value: number | string) => document.querySelectorAll(`main [data-${kind}="${CSS.escape(String(value))}"]`);
  if (before !== undefined) for (const element of every(before)) element.classList.remove("meant");
  if (now !== undefined) for (const element of every(now)) element.classList.add("meant");
}

export function featureKey(stream: string, layer: number, feature: number): string {
  return `${stream}/${layer}/${feature}`;
}

/** The token heard at a time. */
export function tokenAt(doc: ExplainDoc, seconds: number): number | undefined {
  return doc.transcript.tokens.find(
    ({ start, end }) => start !== undefined && end !== undefined && start <= seconds && seconds < end,
  )?.index;
}
