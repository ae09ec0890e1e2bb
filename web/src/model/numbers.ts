/** Numbers and labels as people read them. */

export function probability(p: number): string {
  if (p > 0 && p < 0.001) return "<.001";
  if (p < 1 && p > 0.999) return ">.999";
  return p.toFixed(3).replace(/^0/, "");
}

/** A change in nats, signed, with a true minus. */
export function change(nats: number): string {
  const size = Math.abs(nats);
  const digits = size >= 9.95 ? size.toFixed(1) : size.toFixed(2);
  if (Number(digits) === 0) return "0";
  return (nats < 0 ? "−" : "+") + digits;
}

/** A plain number with two digits, or as many as are asked for, a true minus, and no minus before a zero. */
export function decimal(value: number, digits = 2): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

export function seconds(value: number): string {
  return `${value.toFixed(2)} s`;
}

/** Text that stands beside other text: its line breaks are shown, its spaces are spaces. */
export function flowing(text: string): string {
  return text.replaceAll("\n", "⏎");
}

/** A token with its leading spaces and line breaks made visible. */
export function visible(text: string): string {
  return text.replace(/^ +/, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "⏎") || "∅";
}

/** At most `length` characters, never cutting one in half. */
export function shortened(text: string, length: number): string {
  const characters = [...text.slice(0, 2 * length + 2)];
  return characters.length <= length ? text : `${characters.slice(0, length - 1).join("")}…`;
}
