/** All colours that are drawn rather than styled. The style sheet holds the rest. */

type Colour = readonly [number, number, number];

// Lightness runs one way only, so the order survives colour blindness and grey printing.
const INK_ON_PAPER: Colour[] = [[250, 249, 246], [198, 220, 214], [120, 172, 172], [44, 106, 124], [20, 40, 66]];
const LIGHT_IN_DARK: Colour[] = [[17, 21, 26], [22, 52, 68], [32, 102, 112], [112, 172, 150], [246, 238, 206]];

/** 256 opaque colours as RGBA bytes, from weak to strong. */
export function intensityTable(dark: boolean): Uint8ClampedArray {
  const anchors = dark ? LIGHT_IN_DARK : INK_ON_PAPER;
  const table = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (anchors.length - 1);
    const left = Math.min(Math.floor(place), anchors.length - 2);
    const from = anchors[left] as Colour;
    const to = anchors[left + 1] as Colour;
    for (let c = 0; c < 3; c++) table[4 * i + c] = from[c as 0]! + (to[c as 0]! - from[c as 0]!) * (place - left);
    table[4 * i + 3] = 255;
  }
  return table;
}

/** Of graphs: edges for and against, nodes of what writes and what hears, inputs, and the paper behind. */
export interface GraphColours {
  for: string;
  against: string;
  writing: string;
  hearing: string;
  input: string;
  ink: string;
  muted: string;
  line: string;
  paper: string;
  accent: string;
}

export const graphColours = (dark: boolean): GraphColours =>
  dark
    ? { for: "#5fa8e6", against: "#ee8a3c", writing: "#6cc5c1", hearing: "#e3b04a", input: "#a3adb6", ink: "#e7e9ea", muted: "#a3adb6", line: "#2e363f", paper: "#181d23", accent: "#ffffff" }
    : { for: "#2a72b5", against: "#c8590f", writing: "#0c7a80", hearing: "#b07400", input: "#66717d", ink: "#1b2430", muted: "#56616d", line: "#e4e1d9", paper: "#ffffff", accent: "#000000" };

export const waveColour = (dark: boolean): string => (dark ? "#7fc4c0" : "#1f6f78");
export const attentionColour = (dark: boolean): string => (dark ? "#e8b04a" : "#a85f00");
