/** One native audio element: play all, play a span once or over and over, and a cursor that others can follow. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Span } from "../model/time.ts";

export interface Player {
  element: { current: HTMLAudioElement | null };
  playing: boolean;
  now: () => number;
  /** Play or pause; `within` is played alone where one is given. */
  toggle: (within?: Span) => void;
  seek: (seconds: number) => void;
  play: (span: Span) => void;
  /** Whether the span that is played begins again at its end. */
  loop: (on: boolean) => void;
}

const SHORTEST = 0.05; // seconds of a span that can be heard

/** Whatever begins to sound silences the rest of the page, whoever plays it. */
export function oneSoundAtATime(): void {
  const silenceOthers = ({ target }: Event) => {
    for (const audio of document.querySelectorAll("audio")) if (audio !== target) audio.pause();
  };
  document.addEventListener("play", silenceOthers, { capture: true }); // it does not bubble
}

/** `follow` is called with the current time whenever it changes, at every frame while playing. */
export function usePlayer(follow: (seconds: number) => void): Player {
  const element = useRef<HTMLAudioElement>(null);
  const span = useRef<Span | undefined>(undefined);
  const looping = useRef(false);
  const following = useRef(follow);
  const [playing, setPlaying] = useState(false);
  following.current = follow;

  useEffect(() => {
    const audio = element.current;
    if (!audio) return undefined;
    const update = () => {
      const within = span.current;
      if (within && audio.currentTime >= within.end) {
        if (looping.current) {
          audio.currentTime = within.start;
        } else if (!audio.paused) {
          span.current = undefined;
          audio.pause();
        }
      }
      following.current(audio.currentTime);
    };
    let frame = 0;
    const animate = () => {
      update();
      frame = requestAnimationFrame(animate);
    };
    const started = () => {
      setPlaying(true);
      cancelAnimationFrame(frame);
      animate();
    };
    const stopped = () => {
      setPlaying(false);
      cancelAnimationFrame(frame);
      update();
    };
    // A span that reaches to the end of the sound ends with it.
    const ended = () => {
      const within = span.current;
      if (!within || !looping.current) return stopped();
      audio.currentTime = within.start;
      void audio.play().catch(stopped);
    };
    const listeners = { play: started, pause: stopped, ended, seeked: update, timeupdate: update };
    for (const [name, listener] of Object.entries(listeners)) audio.addEventListener(name, listener);
    return () => {
      cancelAnimationFrame(frame);
      for (const [name, listener] of Object.entries(listeners)) audio.removeEventListener(name, listener);
    };
  }, []);

  const actions = useMemo(() => {
    const begin = (audio: HTMLAudioElement) => void audio.play().catch(() => setPlaying(false));
    const play = ({ start, end }: Span) => {
      const audio = element.current;
      if (!audio) return;
      audio.currentTime = start;
      span.current = { start, end: Math.max(end, start + SHORTEST) };
      begin(audio);
    };
    return {
      play,
      now: () => element.current?.currentTime ?? 0,
      toggle(within?: Span) {
        const audio = element.current;
        if (!audio) return;
        if (!audio.paused) return audio.pause();
        if (within) return play(within);
        span.current = undefined;
        begin(audio);
      },
      seek(seconds: number) {
        span.current = undefined;
        if (element.current) element.current.currentTime = seconds;
        following.current(seconds);
      },
      loop(on: boolean) {
        looping.current = on;
      },
    };
  }, []);
  return { element, playing, ...actions };
}
