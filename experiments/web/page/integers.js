// The entropy model's networks in integers, after clic_jax/coding/fixedpoint.py.
//
// A layer has two int8 kernels, the second for what rounding left of the first. Activations are within +-8128 and sums
// below 2^30, so that they are exact in int32, in any order. Maps are arrays [positions, channels], row by row.

import { LANES, ROWS, sums, views } from "./products.js";

const LIMIT = 8128; // the largest activation
const BLOCK = 64; // positions whose neighbourhoods are gathered at a time, so that they stay in the cache

/** round(x / 2^amount) in int32, halves up; a negative amount shifts left. */
export function shiftRight(x, amount) {
  return amount > 0 ? (x + (1 << (amount - 1))) >> amount : x << -amount;
}

/**
 * A stack of layers on x Int32Array [h * w, in]: {x: Int32Array [positions, out], h, w}.
 *
 * subpixel: numbers of the layers that end in depth to space. where: the positions of the last layer that are wanted,
 * by default all.
 */
export function run(layers, x, h, w, { subpixel = [], where = null } = {}) {
  layers.forEach((layer, i) => {
    x = convolve(layer, x, h, w, i === layers.length - 1 ? where : null);
    if (subpixel.includes(i)) {
      x = depthToSpace(x, h, w);
      [h, w] = [2 * h, 2 * w];
    }
    if (layer.activation) {
      for (let n = 0; n < x.length; n++) x[n] = layer.activation[clipped(x[n]) + LIMIT];
    }
  });
  return { x, h, w };
}

function clipped(value) {
  return Math.min(Math.max(value, -LIMIT), LIMIT);
}

/**
 * The kernels of a layer, each [outputs, k], as `products` reads them: Int16Array [outputs, k / 8, 2, 8].
 * k is rounded up to eights, with zeros.
 */
export function interleaved(kernel, fine, outputs) {
  const k = kernel.length / outputs;
  const padded = roundedUp(k);
  const result = new Int16Array(outputs * padded * 2);
  for (let j = 0; j < outputs; j++) {
    for (let p = 0; p < k; p++) {
      const to = j * padded * 2 + Math.floor(p / LANES) * LANES * 2 + (p % LANES);
      result[to] = kernel[j * k + p];
      result[to + LANES] = fine[j * k + p];
    }
  }
  return result;
}

function roundedUp(k) {
  return Math.ceil(k / LANES) * LANES;
}

/** One convolution with zero padding, at the positions `where`. */
function convolve(layer, x, h, w, where) {
  const { taps, inputs, outputs, kernels } = layer;
  const count = where ? where.length : x.length / inputs;
  const result = new Int32Array(count * outputs);
  const k = roundedUp(taps.length * inputs);
  const patches = kernels.length; // where in the memory, in 16-bit numbers: kernels, patches, sums
  const found = patches + BLOCK * k;
  const { i16, i32 } = views(2 * found + 16 * 2 * ROWS);
  i16.set(kernels);
  for (let start = 0; start < count; start += BLOCK) {
    const rows = Math.min(BLOCK, count - start);
    for (let i = 0; i < rows; i++) {
      const place = where ? where[start + i] : start + i;
      const [row, column] = [Math.floor(place / w), place % w];
      let to = patches + (i - (i % ROWS)) * k + (i % ROWS) * LANES; // and ROWS * LANES on after each eighth number
      let lane = 0;
      for (const [down, right] of taps) {
        const inside = row + down >= 0 && row + down < h && column + right >= 0 && column + right < w;
        let from = inside ? (place + down * w + right) * inputs : 0;
        for (let c = 0; c < inputs; c++) {
          i16[to + lane++] = inside ? clipped(x[from++]) : 0;
          if (lane === LANES) {
            lane = 0;
            to += ROWS * LANES;
          }
        }
      }
    }
    multiply(layer, k, rows, { i32, patches, found }, result, start);
  }
  return result;
}

/** All patches times both kernels, shifted to the output's unit, into result [.., out] from row `start` on. */
function multiply({ bias, drop, shift, outputs }, k, rows, { i32, patches, found }, result, start) {
  for (let j = 0; j < outputs; j++) {
    for (let i = 0; i < rows; i += ROWS) {
      sums(2 * (patches + i * k), 4 * j * k, 4 * (j + 1) * k, 2 * found);
      for (let n = 0; n < Math.min(ROWS, rows - i); n++) {
        const at = found / 2 + 8 * n;
        const sum = i32[at] + i32[at + 1] + i32[at + 2] + i32[at + 3];
        const rest = i32[at + 4] + i32[at + 5] + i32[at + 6] + i32[at + 7];
        const total = sum + bias[j] + shiftRight(rest, drop[j]);
        result[(start + i + n) * outputs + j] = shiftRight(total, shift[j]);
      }
    }
  }
}

/** [h * w, 4 c] -> [4 h w, c]: input channel 4 c + 2 i + j is pixel (i, j). */
function depthToSpace(x, h, w) {
  const result = new Int32Array(x.length);
  const c = x.length / (h * w) / 4;
  for (let row = 0, from = 0; row < h; row++) {
    for (let column = 0; column < w; column++) {
      for (let channel = 0; channel < c; channel++) {
        for (let pixel = 0; pixel < 4; pixel++) {
          const place = (2 * row + (pixel >> 1)) * 2 * w + 2 * column + (pixel & 1);
          result[place * c + channel] = x[from++];
        }
      }
    }
  }
  return result;
}
