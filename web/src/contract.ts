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
