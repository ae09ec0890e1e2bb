// Generated from otoscope.documents by generate_types.py (`npm run types`); do not edit.

/**
 * How much each token depends on each component.
 *
 * `change` is (components, tokens) in nats: log p(token | component zeroed) - log p(token), with the written
 * tokens given to the decoder. Negative: the component helped.
 */
export interface Ablation {
  components: Array<Component>;
  change: PackedArray;
}

/**
 * Cross-attention of the alignment heads, averaged.
 *
 * `matrix` is (tokens, encoder positions).
 */
export interface Alignment {
  heads: Array<[number, number]>;
  matrix: PackedArray;
}

/**
 * A numeric array as it travels in JSON: row-major, little-endian, base64.
 *
 * `value = q * scale + offset` for every stored number `q`. Only "u8" needs the two; floats keep 1 and 0.
 */
export interface PackedArray {
  dtype: "u8" | "f16" | "f32";
  shape: Array<number>;
  scale: number;
  offset: number;
  data: string;
}

/** The explained window and where it lies in the recording. */
export interface AudioInfo {
  file: string;
  duration: number;
  sampling_rate: number;
  window_seconds: number;
  mel_hop_seconds: number;
  frame_seconds: number;
  start: number;
  recording_duration: number;
}

/** A token and its probability in one lens reading. */
export interface Candidate {
  id: number;
  text: string;
  p: number;
}

/** Something that was zeroed: a whole attention or MLP block, or one attention head of it. */
export interface Component {
  id: string;
  label: string;
  stack: "encoder" | "decoder";
  layer: number;
  part: "self_attn" | "cross_attn" | "mlp" | "attn";
  head?: number;
}

/** What the decoder writes when it listens to one encoder layer through the final layer norm. */
export interface EncoderLensLayer {
  layer: number;
  text: string;
  is_final_text: boolean;
  type?: string;
}

/** The logit lens of one token after one decoder layer. "Final" is the token that was written. */
export interface LensLayer {
  layer: number;
  top: Array<Candidate>;
  p_final: number;
  rank_final: number;
  entropy: number;
}

/**
 * The logit lens of one token.
 *
 * `saturation_layer` is the first layer from which on the written token stays on top; omitted when the last
 * layer itself ranks another token first (one that decoding suppressed).
 */
export interface LensToken {
  index: number;
  saturation_layer?: number;
  layers: Array<LensLayer>;
}

/** Every decoder layer read through the final layer norm and the unembedding. */
export interface LogitLens {
  layers: number;
  tokens: Array<LensToken>;
}

/** Which model was opened, and how it ran. */
export interface ModelInfo {
  name: string;
  family: string;
  source: string;
  sha256?: string;
  dtype: string;
  attention: string;
  encoder_layers: number;
  decoder_layers: number;
  heads: number;
  mended?: string;
}

/** A file carried inside a document. */
export interface Resource {
  media_type: string;
  data: string;
}

/** Wall-clock time of one stage. */
export interface Timing {
  stage: string;
  seconds: number;
}

/** One generated token; `p`, `logprob` and `entropy` are those of the step that wrote it. */
export interface TokenInfo {
  index: number;
  id: number;
  text: string;
  p: number;
  logprob: number;
  entropy: number;
  start?: number;
  end?: number;
}

/** What the model wrote. */
export interface TranscriptInfo {
  text: string;
  language?: string;
  tokens: Array<TokenInfo>;
  words: Array<WordInfo>;
  no_speech_prob?: number;
  avg_logprob?: number;
  compression_ratio?: number;
  reference?: string;
  wer?: number;
}

/** One word and its tokens, `first_token` to `last_token` inclusive. */
export interface WordInfo {
  text: string;
  start?: number;
  end?: number;
  p: number;
  first_token: number;
  last_token: number;
}

/**
 * One clip explained.
 *
 * `waveform` is (2, bins): the minimum and the maximum of each bin over the window's `audio.duration`. `mel`
 * is (mel bins, frames) as the model saw it, lowest bin first; frames past the clip's end may be left out.
 * `resources["audio"]` is the window as a WAV file.
 */
export interface ExplainDoc {
  kind: "explain";
  version: 1;
  title: string;
  model: ModelInfo;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  seed?: number;
  audio: AudioInfo;
  waveform: PackedArray;
  mel: PackedArray;
  transcript: TranscriptInfo;
  alignment: Alignment;
  logit_lens: LogitLens;
  encoder_lens: Array<EncoderLensLayer>;
  ablation: Ablation;
  timings: Array<Timing>;
  notes: Array<string>;
  cautions: Array<string>;
  resources: Record<string, Resource>;
  selected_token?: number;
}

/**
 * One feature.
 *
 * `label` is made from statistics; `named` is what a person called it. `density` is the share of places at which it is on;
 * `histogram` counts the recordings by their greatest activation, in equal bins from 0 to `histogram_top`, without the `silent`
 * ones.
 */
export interface FeatureInfo {
  layer: number;
  feature: number;
  label: string;
  named?: string;
  density: number;
  mean: number;
  max: number;
  histogram: Array<number>;
  histogram_top: number;
  silent: number;
  promotes: Array<TokenWeight>;
  suppresses: Array<TokenWeight>;
  areas: Array<LabelArea>;
  neighbours: Array<Neighbour>;
  moments: Array<FeatureMoment>;
}

/**
 * One of the strongest moments of a feature.
 *
 * `snippet` names a resource with the sound from `snippet_start` on; `wave` is (2, bins), the least and greatest sample of each
 * bin of it. Texts have none of the three, and no times.
 */
export interface FeatureMoment {
  recording?: string;
  activation: number;
  start?: number;
  end?: number;
  before: string;
  at: string;
  after: string;
  phoneme?: string;
  snippet?: string;
  snippet_start?: number;
  snippet_seconds?: number;
  wave?: PackedArray;
}

/** How well a feature's peaks tell the recordings with a value of a label from the others, beside shuffled labels. */
export interface LabelArea {
  label: string;
  value: string;
  auc: number;
  shuffled: number;
  n: number;
}

/** Another feature of the layer that writes alike. */
export interface Neighbour {
  feature: number;
  cosine: number;
}

/** A token and how much a feature adds to its logit directly, per unit of activation. */
export interface TokenWeight {
  text: string;
  weight: number;
}

/**
 * Some features of a dictionary.
 *
 * `resources` holds the snippets of sound, as FLAC.
 */
export interface FeaturesDoc {
  kind: "features";
  version: 1;
  title: string;
  model: string;
  place: string;
  dictionary: string;
  corpus: string;
  items: number;
  vectors: number;
  features_in_all: number;
  features: Array<FeatureInfo>;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  notes: Array<string>;
  resources: Record<string, Resource>;
}

/** One picture: lines, or shares that add up to one at every layer. */
export interface CurvePanel {
  title: string;
  about: string;
  form: "lines" | "shares";
  x_name: string;
  y_name: string;
  y_low?: number;
  y_high?: number;
  series: Array<CurveSeries>;
}

/** A value at a layer with its 95 % interval, and over how many things it was taken. */
export interface CurvePoint {
  x: number;
  y: number;
  low?: number;
  high?: number;
  n?: number;
}

/** One line. A control says what the score would be for another reason than the one in question. */
export interface CurveSeries {
  name: string;
  role: "score" | "control";
  about?: string;
  points: Array<CurvePoint>;
}

/** Curves over layers. */
export interface CurveDoc {
  kind: "curve";
  version: 1;
  title: string;
  model: string;
  headline: string;
  about: string;
  cautions: Array<string>;
  panels: Array<CurvePanel>;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  notes: Array<string>;
}

/** A token that was written or, of a prompt, predicted; `after` is then the prompt's token that it is predicted after. */
export interface ReadToken {
  index: number;
  id: number;
  text: string;
  after?: string;
}

/** The lenses of one recording or prompt. */
export interface LensDoc {
  kind: "lens";
  version: 1;
  title: string;
  model: string;
  text: string;
  is_prompt: boolean;
  tokens: Array<ReadToken>;
  logit_lens: LogitLens;
  encoder_lens: Array<EncoderLensLayer>;
  typed_against?: "reference" | "transcript";
  cautions: Array<string>;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  notes: Array<string>;
}

/** One component. `values` has one entry a measure; `price` is what the patch adds to an error rate on ordinary speech. */
export interface SweepCell {
  grid: number;
  row: number;
  column: number;
  component: string;
  label: string;
  winner: boolean;
  values: Array<SweepValue>;
  outcomes: Array<SweepOutcome>;
  price?: number;
}

/** One grid of cells; rows are layers, row 0 first. */
export interface SweepGrid {
  title: string;
  rows: Array<string>;
  columns_name: string;
  columns: Array<string>;
}

/** Something the sweep was made over: a recording, or a token of one. `before` is what was written without a patch. */
export interface SweepItem {
  name: string;
  before: string;
  half?: "discovery" | "test";
}

/** Something measured of every cell. `random` and `stands_out` say in words what its control is and when a cell exceeds it. */
export interface SweepMeasure {
  name: string;
  title: string;
  unit: "share" | "nats" | "logits" | "metric";
  random: string;
  stands_out: string;
}

/** One item under one cell's patch; `text` is the index of what was written in the document's `texts`. */
export interface SweepOutcome {
  item: number;
  verdict?: "unchanged" | "resolved" | "restored" | "collapsed";
  change?: number;
  text?: number;
}

/** What one patch costs on other recordings: measure, before, after. */
export interface SweepPrice {
  label: string;
  rows: Array<[string, string, string]>;
}

/**
 * One measure of one cell, with its 95 % interval over items and its controls.
 *
 * `random` is the same of a random other component of its kind, `direction` that of moving the same activation as far in a
 * random direction, `p` the chance that a random component does as much, `p_adjusted` that chance corrected over all components.
 * `test` is the value on the half of the items that was not looked at when winners were chosen.
 */
export interface SweepValue {
  value: number;
  low?: number;
  high?: number;
  count?: number;
  n: number;
  random?: number;
  direction?: number;
  p?: number;
  p_adjusted?: number;
  test?: number;
  test_n?: number;
  stands_out: boolean;
}

/** A sweep. */
export interface SweepDoc {
  kind: "sweep";
  version: 1;
  title: string;
  model: string;
  headline: string;
  about: string;
  items_name: string;
  measures: Array<SweepMeasure>;
  grids: Array<SweepGrid>;
  cells: Array<SweepCell>;
  items: Array<SweepItem>;
  texts: Array<string>;
  price_name?: string;
  prices: Array<SweepPrice>;
  price_note?: string;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  notes: Array<string>;
}
