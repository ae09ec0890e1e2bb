/** What a feature is about: a histogram, the tokens that it writes, and its strongest moments with their sound. */

import { useMemo, useRef, useState } from "preact/hooks";
import type { FeatureInfo, FeatureMoment, Resource } from "../contract.ts";
import { unpack } from "../model/arrays.ts";
import { flowing, shortened, visible } from "../model/numbers.ts";
import { resourceUrl } from "../model/resources.ts";

/** How strongly it is on, over recordings; `at` marks an activation on the same scale. */
export function Histogram({ feature, at }: { feature: FeatureInfo; at?: number | undefined }) {
  const most = Math.max(1, ...feature.histogram);
  const place = (value: number) => Math.min(1, value / feature.histogram_top) * feature.histogram.length;
  return (
    <figure class="histogram">
      <svg viewBox={`0 0 ${feature.histogram.length} 10`} preserveAspectRatio="none" aria-hidden="true">
        {feature.histogram.map((count, i) => (
          <rect key={i} x={i + 0.08} width={0.84} y={10 - (10 * count) / most} height={(10 * count) / most} />
        ))}
        {at !== undefined && feature.histogram_top > 0 && (
          <line class="at" x1={place(at)} x2={place(at)} y1={0} y2={10} vector-effect="non-scaling-stroke" />
        )}
      </svg>
      <figcaption class="note">
        {at !== undefined && <>Here {at.toPrecision(3)}{at > feature.histogram_top ? ", beyond all of them" : ", the line"}. </>}
        Greatest activation of each recording, 0 to {feature.histogram_top.toPrecision(3)}; {feature.silent} recordings in which it is never on.
      </figcaption>
    </figure>
  );
}

export function Tokens({ title, tokens }: { title: string; tokens: FeatureInfo["promotes"] }) {
  if (tokens.length === 0) return null;
  return (
    <p class="writes">
      {title}{" "}
      {tokens.map(({ text, weight }, i) => (
        <q key={i} class="quoted" title={`${weight} per unit of activation`}>
          <bdi>{visible(text)}</bdi>
        </q>
      ))}
    </p>
  );
}

/** All snippets share one player: one sound at a time. */
export function Moments({ resources, feature }: { resources: Record<string, Resource>; feature: FeatureInfo }) {
  const audio = useRef<HTMLAudioElement>(null);
  const [playing, setPlaying] = useState(-1);
  const play = (index: number, moment: FeatureMoment) => {
    const element = audio.current;
    if (!element || moment.snippet === undefined) return;
    if (playing === index) {
      element.pause();
      setPlaying(-1);
      return;
    }
    const url = resourceUrl({ resources }, moment.snippet);
    if (!url) return;
    element.src = url;
    setPlaying(index);
    void element.play().catch(() => setPlaying(-1));
  };
  if (feature.moments.length === 0) return <p>It was never on.</p>;
  return (
    <>
      <h2>Strongest moments</h2>
      <audio ref={audio} onPause={() => setPlaying(-1)} onEnded={() => setPlaying(-1)} />
      <ol class="moments">
        {feature.moments.map((moment, i) => (
          <li key={i} class="moment">
            {moment.snippet !== undefined && (
              <button type="button" class="play" aria-pressed={playing === i} onClick={() => play(i, moment)}>
                {playing === i ? "Stop" : "Play"}
              </button>
            )}
            <Wave moment={moment} />
            <p class="said">
              <bdi>{shortened(flowing(moment.before), 60)}</bdi>
              <mark>
                <bdi>{shortened(visible(moment.at), 60) || "·"}</bdi>
              </mark>
              <bdi>{shortened(flowing(moment.after), 40)}</bdi>
              {moment.phoneme !== undefined && (
                <span class="phoneme">
                  /<bdi>{shortened(moment.phoneme, 8)}</bdi>/
                </span>
              )}
              <span class="where">
                {moment.activation.toPrecision(3)}
                {moment.start !== undefined && ` · ${moment.start.toFixed(2)} s`}
                {moment.recording !== undefined && (
                  <>
                    {" · "}
                    <bdi title={moment.recording}>{shortened(moment.recording, 40)}</bdi>
                  </>
                )}
              </span>
            </p>
          </li>
        ))}
      </ol>
    </>
  );
}

/** The snippet's waveform with the moment marked. */
function Wave({ moment }: { moment: FeatureMoment }) {
  const path = useMemo(() => {
    if (!moment.wave) return "";
    const values = unpack(moment.wave);
    const bins = values.length / 2;
    const loudest = Math.max(1e-6, ...values.map(Math.abs));
    const y = (value: number) => 10 - (9 * value) / loudest;
    let text = "";
    for (let i = 0; i < bins; i++) text += `M${i + 0.5} ${y(values[i] ?? 0)}V${y(values[bins + i] ?? 0)}`;
    return text;
  }, [moment]);
  const { snippet_start: from, snippet_seconds: length, start, end } = moment;
  if (!path || from === undefined || !length || start === undefined || end === undefined) return null;
  const bins = (moment.wave?.shape[1] ?? 1) as number;
  const left = ((start - from) / length) * bins;
  const width = Math.max(1, ((end - start) / length) * bins);
  return (
    <svg class="wave" viewBox={`0 0 ${bins} 20`} preserveAspectRatio="none" aria-hidden="true">
      <rect x={left} width={width} y={0} height={20} />
      <path d={path} />
    </svg>
  );
}
