/** One native audio element: play all, play a span, and a cursor that others can follow. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Span {
  start: number;
  end: number;
}

export interface Player {
  element: { current: HTMLAudioElement | null };
  playing: boolean;
  toggle: () => void;
  seek: (seconds: number) => void;
  play: (span: Span) => void;
}

/** `follow` is called with the current time whenever it changes, at every frame while playing. */
export function usePlayer(follow: (seconds: number) => void): Player {
  const element = useRef<HTMLAudioElement>(null);
  const stopAt = useRef(Infinity);
  const following = useRef(follow);
  const [playing, setPlaying] = useState(false);
  following.current = follow;

  useEffect(() => {
    const audio = element.current;
    if (!audio) return undefined;
    const update = () => {
      if (audio.currentTime >= stopAt.current) {
        audio.pause();
        stopAt.current = Infinity;
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
    const listeners = { play: started, pause: stopped, ended: stopped, seeked: update, timeupdate: update };
    for (const [name, listener] of Object.entries(listeners)) audio.addEventListener(name, listener);
    return () => {
      cancelAnimationFrame(frame);
      for (const [name, listener] of Object.entries(listeners)) audio.removeEventListener(name, listener);
    };
  }, []);

  const actions = useMemo(() => {
    const begin = (audio: HTMLAudioElement) => void audio.play().catch(() => setPlaying(false));
    return {
      toggle() {
        const audio = element.current;
        stopAt.current = Infinity;
        if (audio?.paused) begin(audio);
        else audio?.pause();
      },
      seek(seconds: number) {
        stopAt.current = Infinity;
        if (element.current) element.current.currentTime = seconds;
        following.current(seconds);
      },
      play({ start, end }: Span) {
        const audio = element.current;
        if (!audio) return;
        audio.currentTime = start;
        stopAt.current = Math.max(end, start + 0.05);
        begin(audio);
      },
    };
  }, []);
  return { element, playing, ...actions };
}
