/** The microphone as a WAV file; nothing leaves the page before it is stopped. */

import { wavOf } from "../../model/wav.ts";

export interface Recording {
  /** Seconds so far, and how loud it is now, 0 to 1. */
  told(): { seconds: number; level: number };
  /** Ends it; the file, or undefined if nothing was heard at all. */
  stop(): Promise<Blob | undefined>;
}

/** Why no recording can be made here, or undefined. */
export function whyNot(): string | undefined {
  if (isSecureContext) return undefined;
  return "Browsers give the microphone only to pages of this machine, or over HTTPS.";
}

export async function record(): Promise<Recording> {
  // As the microphone has it: what browsers do for telephone calls would change what the model hears.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  const pieces: Float32Array[] = [];
  let level = 0;
  try {
    await context.audioWorklet.addModule("/static/live-worklet.js");
    const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 1 });
    tap.port.onmessage = ({ data }: MessageEvent<Float32Array>) => {
      pieces.push(data);
      level = data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    };
    context.createMediaStreamSource(stream).connect(tap);
    tap.connect(context.destination); // it writes nothing there, but without it no sound would be drawn through
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    throw error;
  }
  const seconds = () => pieces.reduce((sum, piece) => sum + piece.length, 0) / context.sampleRate;
  return {
    told: () => ({ seconds: seconds(), level }),
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      return pieces.length ? new Blob([wavOf(pieces, context.sampleRate)], { type: "audio/wav" }) : undefined;
    },
  };
}
