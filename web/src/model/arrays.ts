/** Typed arrays as documents carry them. */

import type { PackedArray } from "../contract.ts";

export function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The value of an IEEE 754 half-precision number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const STRIDES = { u8: 1, f16: 2, f32: 4 } as const;

/** All values, row-major. */
export function unpack(array: PackedArray): Float32Array {
  const bytes = bytesOfBase64(array.data);
  const view = new DataView(bytes.buffer);
  const stride = STRIDES[array.dtype];
  const values = new Float32Array(bytes.length / stride);
  for (let i = 0; i < values.length; i++) {
    values[i] = stored(view, array.dtype, i * stride) * array.scale + array.offset;
  }
  return values;
}

function stored(view: DataView, dtype: PackedArray["dtype"], at: number): number {
  if (dtype === "u8") return view.getUint8(at);
  return dtype === "f32" ? view.getFloat32(at, true) : halfToNumber(view.getUint16(at, true));
}

/** Smallest and largest value; [0, 1] when there is none. */
export function extent(values: Float32Array): [number, number] {
  if (values.length === 0) return [0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
