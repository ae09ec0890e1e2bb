// Takes the sound as it is played or recorded, mixes its channels and hands on whole pieces of it.
const PIECE = 4096;

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
  }

  process([channels]) {
    if (!channels?.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.piece[this.filled++] = sum / channels.length;
      if (this.filled === PIECE) this.handOn();
    }
    return true;
  }

  handOn() {
    const whole = this.piece;
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
    this.port.postMessage(whole, [whole.buffer]);
  }
}

registerProcessor("tap", Tap);
