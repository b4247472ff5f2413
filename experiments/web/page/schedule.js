// The order in which y is coded, and what predicts it: clic_jax/model/schedule.py, with the networks in integers.
//
// Slice by slice, each in two colours of a checkerboard: first the positions whose row + column is even, the anchors,
// and then the others, which see the anchors as well. Half a slice is an array [h * w / 2, g], row by row.

import { run, shiftRight } from "./integers.js";

export const Y_BITS = 6; // y_hat and mean are multiples of 2^-6
const SEEN_BITS = 3; // of which the context networks see these
const INDEX_BITS = 8; // the log scale is in 1/256 of a step of the table
const SCALES = 64;

/**
 * y_hat in 1/64 as slices Int32Array [h * w, g], from z Int32Array [h / 4 * w / 4, N].
 *
 * code: (slice, mean, index) -> that half's y_hat; mean in 1/64, index Uint8Array of the scale table, both
 * [h * w / 2, g].
 */
export function codeSlices(model, z, h, w, gain, code) {
  const halves = [0, 1].map((colour) => positions(h, w, colour));
  const features = model.hyper.map((layers) => {
    return run(layers, z, h / 4, w / 4, { subpixel: model.subpixel }).x;
  });
  const decoded = [];
  let start = 0;
  model.groups.forEach((g, k) => {
    const support = [...features];
    if (k) {
      const earlier = model.sees_all || k === 1 ? decoded : [decoded[0], decoded[k - 1]];
      support.unshift(run(model.channel[k - 1], seen(beside(earlier, h * w)), h, w).x);
    }
    const nearby = model.spatial[k].at(-1).outputs;
    const step = (where, near) => {
      const inputs = beside([near, ...support.map((map) => rows(map, h * w, where))], where.length);
      const out = run(model.parameters[k], inputs, 1, where.length).x;
      const mean = new Int32Array(where.length * g);
      const index = new Uint8Array(where.length * g);
      for (let i = 0; i < where.length; i++) {
        for (let c = 0; c < g; c++) {
          mean[i * g + c] = out[2 * i * g + c];
          const raw = out[(2 * i + 1) * g + c] - model.scale_offset + gain[start + c];
          index[i * g + c] = Math.min(Math.max((raw + (1 << (INDEX_BITS - 1))) >> INDEX_BITS, 0), SCALES - 1);
        }
      }
      return code(k, mean, index);
    };
    const slice = new Int32Array(h * w * g);
    spread(slice, halves[0], step(halves[0], new Int32Array(halves[0].length * nearby)));
    const near = run(model.spatial[k], seen(slice), h, w, { where: halves[1] }).x;
    spread(slice, halves[1], step(halves[1], near));
    decoded.push(slice);
    start += g;
  });
  return decoded;
}

/** What the gain adds to the log scale of each channel; additions, products and quotients only, so exact. */
export function indexGain(model, quality) {
  const gain = between(model.log_gain, model, quality);
  return Int32Array.from(gain, (value) => Math.floor((value / model.log_step) * 2 ** INDEX_BITS + 0.5));
}

/** The row of gains of a quality, Float64Array [M], linear between the rows of `table`; zeros where there are none. */
export function between(table, model, quality) {
  const m = model.groups.reduce((sum, g) => sum + g, 0);
  if (!table) return new Float64Array(m);
  const anchors = table.length / m;
  const place = ((Math.round(100 * quality) - 100) * (anchors - 1)) / 9900;
  const left = Math.min(Math.floor(place), anchors - 2);
  return Float64Array.from({ length: m }, (_, c) => {
    const [low, high] = [table[left * m + c], table[(left + 1) * m + c]];
    return low + (place - left) * (high - low);
  });
}

/** Which positions of h * w have that colour, row by row: 0 where row + column is even. */
function positions(h, w, colour) {
  return Int32Array.from({ length: (h * w) / 2 }, (_, i) => {
    const row = Math.floor(i / (w / 2));
    return row * w + 2 * (i % (w / 2)) + ((row + colour) & 1);
  });
}

/** y_hat at the resolution of the context networks' inputs. */
function seen(x) {
  return x.map((value) => shiftRight(value, Y_BITS - SEEN_BITS));
}

/** The rows `where` of a map of `count` positions. */
function rows(map, count, where) {
  const c = map.length / count;
  const result = new Int32Array(where.length * c);
  where.forEach((place, i) => result.set(map.subarray(place * c, place * c + c), i * c));
  return result;
}

/** Puts the rows of `half` at the positions `where` of `map`. */
function spread(map, where, half) {
  const c = half.length / where.length;
  where.forEach((place, i) => map.set(half.subarray(i * c, i * c + c), place * c));
}

/** Maps of `count` positions with their channels side by side. */
export function beside(maps, count, Type = Int32Array) {
  const widths = maps.map((map) => map.length / count);
  const total = widths.reduce((sum, width) => sum + width, 0);
  const result = new Type(count * total);
  let column = 0;
  maps.forEach((map, n) => {
    for (let i = 0, from = 0; i < count; i++) {
      for (let c = 0; c < widths[n]; c++) result[i * total + column + c] = map[from++];
    }
    column += widths[n];
  });
  return result;
}
