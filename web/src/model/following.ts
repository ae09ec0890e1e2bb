/** Two pages in frames that follow each other: what is chosen in one is chosen in the other, and they scroll together. */

import type { Doc } from "../host.ts";

export interface Following {
  end(): void;
}

/** Keep two windows of this server's own together until it is ended. */
export function follow(windows: [Window, Window], docs: [Doc, Doc]): Following {
  const ending = new AbortController();
  const { signal } = ending;
  const echoes = new Map<Window, string>(); // what was set in a window for the other's sake, and must not go back
  let leading: Window | undefined; // the one that a person moves
  const link = (leader: Window, other: Window, there: (hash: string) => string) => {
    const onHash = () => {
      const hash = leader.location.hash;
      if (echoes.get(leader) === hash) return void echoes.delete(leader);
      const wanted = there(hash);
      if (other.location.hash === wanted) return undefined;
      echoes.set(other, wanted);
      go(other, wanted);
      return undefined;
    };
    leader.addEventListener("hashchange", onHash, { signal });
    for (const sign of ["wheel", "pointerdown", "keydown", "touchstart"]) {
      leader.addEventListener(sign, () => (leading = leader), { signal, passive: true, capture: true });
    }
    leader.addEventListener("scroll", () => leading === leader && scrollAlike(leader.document, other), { signal, passive: true });
  };
  const [[a, b], [one, two]] = [windows, docs];
  /** What the left page shows first is shown at the right; it is known once that page is drawn. */
  const beginTogether = () => {
    const page = a.document.querySelector("main");
    if (a.location.hash || signal.aborted) return;
    if (!page) setTimeout(beginTogether, 100);
    else if (page.dataset.token) go(b, matchingHash(`#token=${page.dataset.token}`, one, two));
  };
  link(a, b, (hash) => matchingHash(hash, one, two));
  link(b, a, (hash) => matchingHash(hash, two, one));
  beginTogether();
  return { end: () => ending.abort() };
}

/** Changes a window's own part of its address; an address that is not whole would be taken for one of this page. */
function go(there: Window, hash: string): void {
  there.location.replace(new URL(hash || "#", there.location.href));
}

/** The address of one document that means in another what it means there: a token is found by its time. */
export function matchingHash(hash: string, from: Doc, to: Doc): string {
  const parameters = new URLSearchParams(hash.slice(1));
  const index = Number(parameters.get("token") ?? NaN);
  if (from.kind !== "explain" || to.kind !== "explain" || !Number.isInteger(index)) return hash;
  const token = from.transcript.tokens[index];
  if (token?.start === undefined || token.end === undefined) return hash;
  const middle = (token.start + token.end) / 2;
  let [nearest, least] = [index, Infinity];
  for (const one of to.transcript.tokens) {
    if (one.start === undefined || one.end === undefined) continue;
    const away = Math.max(one.start - middle, middle - one.end, 0) + Math.abs((one.start + one.end) / 2 - middle) / 1000;
    if (away < least) [nearest, least] = [one.index, away];
  }
  parameters.set("token", String(nearest));
  return `#${parameters}`;
}

/** Whether two documents with tokens are of different recordings or texts, so that their tokens do not belong together. */
export function areApart([a, b]: readonly [Doc, Doc]): boolean {
  const [one, other] = [heardIn(a), heardIn(b)];
  if (!one || !other) return false;
  if (one.seconds !== undefined && other.seconds !== undefined && Math.abs(one.seconds - other.seconds) > 0.02) return true;
  return one.name !== other.name;
}

/** What was heard or read: its name, of a prompt the text, and how long it is. */
function heardIn(doc: Doc): { name: string; seconds?: number | undefined } | undefined {
  if (doc.kind === "explain") return { name: doc.audio.file, seconds: doc.audio.duration };
  if (doc.kind !== "lens") return undefined;
  return doc.is_prompt ? { name: doc.text } : { name: doc.title.split(" · ")[0] as string, seconds: doc.duration };
}

/** Scroll a window to the panel that another shows at its top, as far into it. */
function scrollAlike(leader: Document, follower: Window): void {
  const edge = 60; // below the bar that stays
  const panels = [...leader.querySelectorAll<HTMLElement>("section.panel[data-testid]")];
  const at = panels.findLast((panel) => panel.getBoundingClientRect().top <= edge);
  const twin = at && follower.document.querySelector<HTMLElement>(`section.panel[data-testid="${CSS.escape(at.dataset.testid ?? "")}"]`);
  if (!at || !twin) {
    follower.scrollTo({ top: leader.scrollingElement?.scrollTop ?? 0, behavior: "instant" });
    return;
  }
  const box = at.getBoundingClientRect();
  const share = Math.min((edge - box.top) / Math.max(box.height, 1), 1);
  const own = twin.getBoundingClientRect();
  follower.scrollBy({ top: own.top + share * own.height - edge, behavior: "instant" });
}
