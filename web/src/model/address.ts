/** The part of the address that keeps what was chosen: `#name=value&...`. */

/** What the address says of a name. */
export function inAddress(hash: string, name: string): string | undefined {
  return new URLSearchParams(hash.replace(/^#/, "")).get(name) ?? undefined;
}

/** One of the known values; the first of them when the address names another. */
export function oneInAddress<T extends string>(hash: string, name: string, known: readonly [T, ...T[]]): T {
  return known.find((one) => one === inAddress(hash, name)) ?? known[0];
}

/** A number from 0 to below `count`; undefined when the address names none. */
export function indexInAddress(hash: string, name: string, count: number): number | undefined {
  const text = inAddress(hash, name) ?? "";
  return /^\d{1,6}$/.test(text) && Number(text) < count ? Number(text) : undefined;
}

/** The address with some names set anew, to one value or several, or taken out where there is none; others stay. */
export function addressWith(hash: string, changes: Record<string, string | string[] | undefined>): string {
  const all = new URLSearchParams(hash.replace(/^#/, ""));
  for (const [name, value] of Object.entries(changes)) {
    const [first, ...more] = value === undefined ? [] : [value].flat();
    if (first === undefined) all.delete(name);
    else all.set(name, first); // in its old place
    for (const one of more) all.append(name, one);
  }
  return `#${all}`.replaceAll("%3A", ":").replaceAll("%40", "@"); // as people would write it
}
