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

/** Why a head looked from one token at another: its score before softcap and mask, as parts of pairs of sources. */
export interface AttentionScore {
  layer: number;
  head: number;
  query: number;
  key: number;
  score: number;
  pairs: Array<ScorePair>;
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

/**
 * One graph: targets, nodes, edges, and what is known about them.
 *
 * `dictionary` is that of the stack that writes, `encoder_dictionary` of the one that hears, where it was opened.
 */
export interface GraphData {
  model: string;
  dictionary: string;
  encoder_dictionary?: string;
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

/** One head's part of an edge or an attention score's layer and head. */
export interface HeadPart {
  layer: number;
  head: number;
  cross: boolean;
  part: number;
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

/** How to make the graph again: the command, and lines of Python that leave it in `graph`. */
export interface Made {
  command: string;
  python: string;
}

/** What two sources together supplied to an attention score, by ids or names. */
export interface ScorePair {
  query: string;
  key: string;
  part: number;
}

/** The sound of a graph; `waveform` is (2, bins), `mel` (mel bins, frames), lowest bin first, as the model saw it. */
export interface Sound {
  audio: AudioInfo;
  waveform: PackedArray;
  mel?: PackedArray;
}

/** Nodes that a person takes for one thing. A node is in one supernode at most. */
export interface Supernode {
  label: string;
  nodes: Array<string>;
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
 *     zero: Attention blocks, single heads and MLPs whose output is set to zero: `decoder_blocks.2.cross_attn.3`.
 *     features: Features that are set or scaled: `encoder:3:604=0`; several of one concept are a supernode.
 *     dictionary: What features of the decoder are: a folder, or `neurons`, the model's own.
 *     encoder_dictionary: The same of the encoder.
 *
 * Raises:
 *     OptionError: A component, feature or span is not spelled as one.
 */
export interface Intervention {
  silence: Array<[number, number]>;
  zero: Array<string>;
  features: Array<string>;
  dictionary: string;
  encoder_dictionary: string;
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
 * decoder. `python` and `command` do the same again.
 */
export interface Outcome {
  note?: string;
  kind: "intervention";
  version: 1;
  title: string;
  file: string;
  offset: number;
  duration: number;
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
