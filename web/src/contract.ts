// Generated from otoscope.documents by generate_types.py (`npm run types`); do not edit.

/**
 * How much each token depends on each component.
 *
 * `change` is (components, tokens) in nats: log p(token | component zeroed) - log p(token), with the written
 * tokens given to the decoder. Negative: the component helped. `control_change` is (controls, tokens).
 */
export interface Ablation {
  components: Array<Component>;
  change: PackedArray;
  controls: Array<Control>;
  control_change?: PackedArray;
}

/**
 * What each source supplied to a target along all paths, through features that are nodes or not; all parts sum to `value`.
 *
 * `sound` has one number a segment, `tokens` one a token; `heads` are layer, head, segment and part of what cross-attention
 * brought, the largest ones.
 */
export interface Account {
  value: number;
  sound: Array<number>;
  tokens: Array<number>;
  positions: number;
  biases: number;
  errors: number;
  heads: Array<[number, number, number, number]>;
}

/**
 * What supplied the logit of every token, every path of the decoder counted, by its frozen gates and attention.
 *
 * `sound` is (tokens, spans): what the encoder's output over each span supplied; `text` (tokens, tokens): what each token before
 * did. `spans` follow one another; the last may be the padding, which begins at the clip's end.
 */
export interface Accounts {
  spans: Array<[number, number]>;
  sound: PackedArray;
  text: PackedArray;
  tokens: Array<TokenAccount>;
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
 * What was written onto one graph; everything is filed under node ids, so it outlives another pruning.
 *
 * `places` are where a person put the boxes of the subgraph, as shares of its width and height from the upper left; boxes of
 * supernodes are filed under `supernode/` and the id of their first node.
 */
export interface Annotations {
  labels: Record<string, string>;
  pins: Array<string>;
  supernodes: Array<Supernode>;
  places: Record<string, [number, number]>;
  note: string;
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

/** Why a head looked from one token at another: its score before softcap and mask, as parts of pairs of sources. */
export interface AttentionScore {
  layer: number;
  head: number;
  query: number;
  key: number;
  score: number;
  pairs: Array<ScorePair>;
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

/**
 * The shortest stretch of sound that holds at least half of what the sound said for a token.
 *
 * `share` is what it holds, of all that the sound said for it; `heads` are those that brought it.
 */
export interface Carried {
  start: number;
  end: number;
  share: number;
  heads: Array<HeadShare>;
}

/**
 * Whether predictions of the graph come true when nodes are taken away in the model.
 *
 * `direct`: correlation with everything frozen; `free`: with the model reacting, and its 95 % interval; `baselines` are simpler
 * guides.
 */
export interface CheckLine {
  what: string;
  n: number;
  direct?: number;
  free?: number;
  low?: number;
  high?: number;
  baselines: Record<string, number | null>;
}

/** What made the model write one token, and why it was traced. */
export interface Circuit {
  token: number;
  why: "alarm" | "asked for" | "least certain";
  graph: GraphData;
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

/** What heads of an attention part are compared with: a random subspace of a head's width, taken out of what it writes. */
export interface Control {
  stack: "encoder" | "decoder";
  layer: number;
  part: "self_attn" | "cross_attn" | "attn";
}

/**
 * An edge by the last head on its way. Heads, `residual` (no head) and `skip` (skip paths of the dictionary) sum to the edge;
 * `others` is what the heads that are not listed carry together.
 */
export interface EdgeSplit {
  source: number;
  target: number;
  heads: Array<HeadPart>;
  others: number;
  residual: number;
  skip: number;
  scores: Array<AttentionScore>;
}

/** Edges as three arrays of one length: what node supplies which node, and how much (`f32`; indices are exact to 2**24). */
export interface Edges {
  source: PackedArray;
  target: PackedArray;
  weight: PackedArray;
}

/** What the decoder writes when it listens to one encoder layer through the final layer norm. */
export interface EncoderLensLayer {
  layer: number;
  text: string;
  is_final_text: boolean;
  type?: string;
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

/**
 * One feature of the encoder over the time of the clip.
 *
 * `values` are activations, a column the one of largest size within `column_seconds`. `share` is its part of what the layer's
 * features said for `token`; both are missing where a person asked for the feature.
 */
export interface FeatureRow {
  layer: number;
  feature: number;
  dictionary: string;
  column_seconds: number;
  values: PackedArray;
  token?: number;
  share?: number;
}

/**
 * One graph: targets, nodes, edges, and what is known about them.
 *
 * `dictionary` is what people call that of the stack that writes, `encoder_dictionary` that of the one that hears, where it was
 * opened. Their folders are what `load_dictionary` takes (`neurons` for the model's own); missing where nobody knows them.
 */
export interface GraphData {
  model: string;
  dictionary: string;
  dictionary_folder?: string;
  encoder_dictionary?: string;
  encoder_dictionary_folder?: string;
  text: string;
  streams: Array<GraphStream>;
  tokens: Array<GraphToken>;
  segments: Array<GraphSegment>;
  targets: Array<GraphTarget>;
  nodes: Array<GraphNode>;
  edges: Edges;
  splits: Array<EdgeSplit>;
  features: Array<GraphFeature>;
  left_out: LeftOut;
  checks: Array<CheckLine>;
  summary: Array<string>;
  made: Made;
  annotations: Annotations;
}

/** What is known of a feature apart from this graph; `about` where examples were collected. */
export interface GraphFeature {
  stream: string;
  layer: number;
  feature: number;
  promotes: Array<TokenWeight>;
  suppresses: Array<TokenWeight>;
  about?: FeatureInfo;
}

/**
 * A node. `position` is its token, `segment` its stretch of sound, and it has one of the two or neither. `start` and
 * `end` say when its sound is; of a target, when the word that it begins is said.
 *
 * `influence` is the share of the targets that reaches them through the node along all paths of the whole graph. `label` is made
 * by rule; what a person calls it is an annotation. `inputs` is missing where nothing was traced into it.
 */
export interface GraphNode {
  id: string;
  kind: "feature" | "error" | "token" | "position" | "bias" | "target" | "frame" | "projector";
  stream: string;
  layer: number;
  position?: number;
  segment?: number;
  feature?: number;
  activation?: number;
  start?: number;
  end?: number;
  label: string;
  influence: number;
  inputs?: Inputs;
}

/** A stretch of sound over which frames are pooled into one node. */
export interface GraphSegment {
  label: string;
  start: number;
  end: number;
  kind: "word" | "pause" | "padding" | "piece";
}

/** A stack of layers: the one that writes, or the one that hears. */
export interface GraphStream {
  name: string;
  layers: number;
  hears: boolean;
}

/**
 * What is explained: the logit of a token over the mean of the vocabulary, or over that of another token.
 *
 * `position` is the token at which it is read; `written` the number of the written token that it is, where one was written.
 */
export interface GraphTarget {
  node: number;
  text: string;
  p?: number;
  weight: number;
  position: number;
  written?: number;
  against?: string;
  account?: Account;
}

/**
 * A token that the writing stack was given; `start` and `end` are those of its word, where it was heard.
 *
 * `prompt`: it was given by the decoder's prompt, not written.
 */
export interface GraphToken {
  text: string;
  prompt: boolean;
  start?: number;
  end?: number;
}

/**
 * Cross-attention of every head while each token was chosen.
 *
 * `matrix` is (heads, tokens, columns) as shares of `peak` (heads, tokens), the row's largest weight; a column is the mean over
 * `column_seconds`. `padding` (heads, tokens) is the weight that lies on what follows the clip.
 */
export interface HeadAttention {
  heads: Array<[number, number]>;
  column_seconds: number;
  matrix: PackedArray;
  peak: PackedArray;
  padding: PackedArray;
}

/** One head's part of an edge or an attention score's layer and head. */
export interface HeadPart {
  layer: number;
  head: number;
  cross: boolean;
  part: number;
}

/** A head of cross-attention and its share of what it and the others brought for a token. */
export interface HeadShare {
  layer: number;
  head: number;
  share: number;
}

/**
 * What a node sums over: its edges and `rest`, signed, make `value`.
 *
 * `mass` is the sum of absolute sizes over edges and everything else (`rest_mass`), so that an edge's share of the input is
 * `weight / mass`, and shares of edges and rest sum to 1 in size, however few edges are kept.
 */
export interface Inputs {
  value: number;
  rest: number;
  rest_mass: number;
  mass: number;
}

/** How well a feature's peaks tell the recordings with a value of a label from the others, beside shuffled labels. */
export interface LabelArea {
  label: string;
  value: string;
  auc: number;
  shuffled: number;
  n: number;
}

/**
 * What the graph does not show, so that it can say so.
 *
 * `rest` is the share of the influence that ends in features that are no nodes, `errors` in what the dictionary misses.
 */
export interface LeftOut {
  active_features: number;
  traced_features: number;
  shown_features: number;
  traced_edges: number;
  shown_edges: number;
  node_share: number;
  edge_share: number;
  rest: number;
  errors: number;
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

/** How to make the graph again: the command, and lines of Python that leave it in `graph`. */
export interface Made {
  command: string;
  python: string;
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

/** Another feature of the layer that writes alike. */
export interface Neighbour {
  feature: number;
  cosine: number;
}

/** A file carried inside a document. */
export interface Resource {
  media_type: string;
  data: string;
}

/**
 * How much each token is to be trusted, by a monitor that watched while it was written.
 *
 * `steps` has one risk a token and one for the end of the text. It is an alarm from `threshold` on, chosen so that a share
 * `false_alarm_rate` of ordinary speech reaches it; `alarm_token` is the first step that did, numbered
 * like the tokens (the end of the text comes after the last). `parts` are what the risk is made of.
 */
export interface Risk {
  monitor: string;
  steps: Array<number>;
  parts: Record<string, Array<number>>;
  threshold: number;
  false_alarm_rate: number;
  alarm_token?: number;
}

/** What two sources together supplied to an attention score, by ids or names. */
export interface ScorePair {
  query: string;
  key: string;
  part: number;
}

/** Nodes that a person takes for one thing. A node is in one supernode at most. */
export interface Supernode {
  label: string;
  nodes: Array<string>;
}

/** Wall-clock time of one stage. */
export interface Timing {
  stage: string;
  seconds: number;
}

/**
 * Where the logit of one token comes from; all parts and the sound sum to `value`, its logit over the vocabulary's mean.
 *
 * `carried` is missing where no stretch of the clip holds half of it, as when the padding does.
 */
export interface TokenAccount {
  value: number;
  sound: number;
  text: number;
  prompt: number;
  positions: number;
  biases: number;
  errors: number;
  carried?: Carried;
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

/** A token and how much a feature adds to its logit directly, per unit of activation. */
export interface TokenWeight {
  text: string;
  weight: number;
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
  note?: string;
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
  in_words: Array<string>;
  left_out: Array<string>;
  head_attention?: HeadAttention;
  accounts?: Accounts;
  risk?: Risk;
  feature_rows: Array<FeatureRow>;
  circuits: Array<Circuit>;
  selected_token?: number;
}

/**
 * Some features of a dictionary.
 *
 * `resources` holds the snippets of sound, as FLAC.
 */
export interface FeaturesDoc {
  note?: string;
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

/** The sound of a graph; `waveform` is (2, bins), `mel` (mel bins, frames), lowest bin first, as the model saw it. */
export interface Sound {
  audio: AudioInfo;
  waveform: PackedArray;
  mel?: PackedArray;
}

/**
 * One graph on a page of its own, with its sound, and another one to compare it with.
 *
 * `resources["audio"]` is the window as a WAV file, `resources["other-audio"]` that of the other graph; the rest are snippets of
 * features.
 */
export interface GraphDoc {
  note?: string;
  kind: "graph";
  version: 1;
  title: string;
  graph: GraphData;
  sound?: Sound;
  other?: GraphData;
  other_sound?: Sound;
  settings: Record<string, string | number | boolean | null>;
  versions: Record<string, string>;
  notes: Array<string>;
  resources: Record<string, Resource>;
}

/** The same change somewhere else, chosen at random. */
export interface ControlRun {
  intervention: Intervention;
  text: string;
  changed: boolean;
  size: number;
}

/**
 * What is changed; all of it together.
 *
 * Attributes:
 *     silence: Spans of the sound that are silenced, before the spectrogram is made.
 *     zero: Attention blocks, single heads and MLPs whose output is set to zero: `decoder_blocks.2.cross_attn.3`, of a language
 *         model `blocks.9.attn.3`.
 *     scale: The same, multiplied by a factor: `blocks.9.attn.3x0.5`.
 *     features: Features that are set or scaled: `encoder:3:604=0`; several of one concept are a supernode.
 *     dictionary: What features of the stack that writes are: a folder, or `neurons`, the model's own.
 *     encoder_dictionary: The same of the encoder.
 *
 * Raises:
 *     OptionError: A component, feature or span is not spelled as one.
 */
export interface Intervention {
  silence: Array<[number, number]>;
  zero: Array<string>;
  scale: Array<string>;
  features: Array<string>;
  dictionary: string;
  encoder_dictionary: string;
}

/** A token that may follow a prompt: its probability as the model is, and changed. */
export interface NextToken {
  id: number;
  text: string;
  before: number;
  after: number;
}

/** What a monitor said of a text: the risk at each written token, and of the whole, its end included. */
export interface RiskInfo {
  tokens: Array<number>;
  text: number;
  threshold: number;
  alarm: boolean;
}

/** A run of words that stayed, or were replaced, added or taken away. */
export interface WordChange {
  op: "same" | "replaced" | "added" | "removed";
  before: string;
  after: string;
}

/** What was written, what each layer knew, and how far it is to be trusted. */
export interface Written {
  transcript: TranscriptInfo;
  logit_lens: LogitLens;
  risk?: RiskInfo;
}

/**
 * A text before and after an intervention, beside the same done elsewhere at random.
 *
 * `change` is (tokens): log p(token | changed) - log p(token) in nats, of the tokens that were written before, given to the
 * stack that writes. `python` and `command` do the same again. What a language model continues is a `prompt`; then there is no
 * recording, and `next_tokens` are the most probable ones after it on either side, the likeliest before first.
 */
export interface Outcome {
  note?: string;
  kind: "intervention";
  version: 1;
  title: string;
  file: string;
  offset: number;
  duration: number;
  prompt?: string;
  next_tokens: Array<NextToken>;
  model: ModelInfo;
  intervention: Intervention;
  before: Written;
  after: Written;
  words: Array<WordChange>;
  change: PackedArray;
  size: number;
  controls: Array<ControlRun>;
  seed: number;
  python: string;
  command: string;
  notes: Array<string>;
  seconds: number;
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
  note?: string;
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
  note?: string;
  kind: "lens";
  version: 1;
  title: string;
  model: string;
  text: string;
  is_prompt: boolean;
  duration?: number;
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

/**
 * Something measured of every cell. `control` names its control; `random` and `stands_out` say in words what that is, and
 * when a cell exceeds it.
 */
export interface SweepMeasure {
  name: string;
  title: string;
  unit: "share" | "nats" | "logits" | "metric";
  control: "random components" | "other cells";
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
 * A missing `value` was not measured: the cell was not patched, and `n` is 0. `random` is that of the measure's `control`,
 * `direction` that of moving the same activation as far in a random direction, `p` the chance that a random component does as
 * much, `p_adjusted` that chance corrected over all components. `test` is the value on the half of the items that was not
 * looked at when winners were chosen.
 */
export interface SweepValue {
  value?: number;
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
  note?: string;
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
