// The entropy model's networks in integers, after clic_jax/coding/fixedpoint.py.
//
// A layer has two int8 kernels, the second for what rounding left of the first. Activations are within +-8128 and sums
// below 2^30, so that products and sums are exact in the float64 that numbers here are, in any order. Maps are arrays
// [positions, channels], positions row by row.

const SPLIT_LIMIT = 8128; // the largest activation
const BLOCK = 64; // positions whose neighbourhoods are gathered at a time, so that they stay in the cache

/** round(x / 2^amount) in int32, halves up; a negative amount shifts left. */
export function shiftRight(x, amount) {
  return amount > 0 ? (x + (1 << (amount - 1))) >> amount : x << -amount;
}

/**
 * A stack of layers on x Int32Array [h * w, in]: {x: Int32Array [positions, out], h, w}.
 *
 * subpixel: numbers of the layers that end in depth to space. where: the positions that are wanted of a stack of one
 * layer, or of one whose others are 1x1; by default all.
 */
export function run(layers, x, h, w, { subpixel = [], where = null } = {}) {
  layers.forEach((layer, i) => {
    x = convolve(layer, x, h, w, i ? null : where);
    if (subpixel.includes(i)) {
      x = depthToSpace(x, h, w);
      [h, w] = [2 * h, 2 * w];
    }
    if (layer.activation) {
      for (let n = 0; n < x.length; n++) x[n] = layer.activation[clipped(x[n]) + SPLIT_LIMIT];
    }
  });
  return { x, h, w };
}

function clipped(value) {
  return Math.min(Math.max(value, -SPLIT_LIMIT), SPLIT_LIMIT);
}

/** One convolution with zero padding, at the positions `where`. */
function convolve(layer, x, h, w, where) {
  const { taps, inputs, outputs } = layer;
  const count = where ? where.length : x.length / inputs;
  const result = new Int32Array(count * outputs);
  const patches = new Float64Array(BLOCK * taps.length * inputs);
  for (let start = 0; start < count; start += BLOCK) {
    const rows = Math.min(BLOCK, count - start);
    for (let i = 0, to = 0; i < rows; i++) {
      const place = where ? where[start + i] : start + i;
      const [row, column] = [Math.floor(place / w), place % w];
      for (const [down, right] of taps) {
        const inside = row + down >= 0 && row + down < h && column + right >= 0 && column + right < w;
        let from = inside ? (place + down * w + right) * inputs : 0;
        for (let c = 0; c < inputs; c++) patches[to++] = inside ? clipped(x[from++]) : 0;
      }
    }
    multiply(patches, rows, layer, result, start);
  }
  return result;
}

/** Rows of patches [rows, k] times both kernels [out, k], shifted to the output's unit, into result [.., out]. */
function multiply(patches, rows, layer, result, start) {
  const { kernel, fine, bias, drop, shift, outputs } = layer;
  const k = kernel.length / outputs;
  for (let j = 0; j < outputs; j++) {
    const finish = (row, sum, rest) => {
      if (row < rows) result[(start + row) * outputs + j] = shiftRight(sum + bias[j] + shiftRight(rest, drop[j]), shift[j]);
    };
    for (let i = 0; i < rows; i += 4) { // four rows at a time, so that each weight is read once for them
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      let f0 = 0, f1 = 0, f2 = 0, f3 = 0;
      for (let p = j * k, a = i * k; p < j * k + k; p++, a++) {
        const big = kernel[p];
        const small = fine[p];
        const x0 = patches[a];
        const x1 = patches[a + k];
        const x2 = patches[a + 2 * k];
        const x3 = patches[a + 3 * k];
        s0 += x0 * big;
        s1 += x1 * big;
        s2 += x2 * big;
        s3 += x3 * big;
        f0 += x0 * small;
        f1 += x1 * small;
        f2 += x2 * small;
        f3 += x3 * small;
      }
      finish(i, s0, f0);
      finish(i + 1, s1, f1);
      finish(i + 2, s2, f2);
      finish(i + 3, s3, f3);
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
