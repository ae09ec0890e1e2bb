/** Which token of one text is which of another. */

/** For every token of `after` its partner in `before`, or undefined: a longest common subsequence of ids. */
export function partners(before: number[], after: number[]): (number | undefined)[] {
  const columns = after.length + 1;
  const best = new Uint16Array((before.length + 1) * columns);
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      best[i * columns + j] =
        before[i] === after[j]
          ? (best[(i + 1) * columns + j + 1] ?? 0) + 1
          : Math.max(best[(i + 1) * columns + j] ?? 0, best[i * columns + j + 1] ?? 0);
    }
  }
  const found: (number | undefined)[] = after.map(() => undefined);
  for (let i = 0, j = 0; i < before.length && j < after.length; ) {
    if (before[i] === after[j]) found[j++] = i++;
    else if ((best[(i + 1) * columns + j] ?? 0) >= (best[i * columns + j + 1] ?? 0)) i++;
    else j++;
  }
  return found;
}
