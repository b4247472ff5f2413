// Symbols out of a range-coded stream: docs/format.md, "The range coder"; clic_jax/coding/range_coder.py writes it.
//
// A state is 64 bits wide, and numbers here are exact below 2^53. So it is kept in halves of 32 bits, and computed
// with in pieces that fit: range >> 24 has 40 bits, and a quotient of 24 bits is found in two steps of 12.

import { UserError } from "./checks.js";

export const TOTAL = 2 ** 24; // of the frequencies of a table
const HALF = 2 ** 32;
const ESCAPED_MIN = -(2 ** 15); // escaped values are 16 plain bits from here
const ESCAPE = Uint32Array.from({ length: 2 ** 16 + 1 }, (_, i) => 256 * i);

export class RangeDecoder {
  #bytes;
  #at = 0;
  #offset = [0, 0]; // of the stream's number from the lower end of the range: high and low half
  #range = [HALF - 1, HALF - 1];

  constructor(bytes) {
    this.#bytes = bytes;
    this.#offset = [this.#word(), this.#word()];
  }

  /**
   * The next index.length symbols, Int32Array, the i-th by tables[index[i]]: table by table, and then by position.
   * A table: {first, edges}, edges Uint32Array [n + 2], from 0 to 2^24; the last entry stands for all other values.
   */
  decode(index, tables) {
    const counts = new Uint32Array(tables.length + 1);
    for (let i = 0; i < index.length; i++) counts[index[i] + 1]++;
    for (let t = 1; t < counts.length; t++) counts[t] += counts[t - 1];
    const order = new Uint32Array(index.length); // positions, sorted by table
    const next = counts.slice();
    for (let i = 0; i < index.length; i++) order[next[index[i]]++] = i;
    const symbols = new Int32Array(index.length);
    const escaped = [];
    tables.forEach(({ first, edges }, t) => {
      for (let i = counts[t]; i < counts[t + 1]; i++) {
        const rank = this.#take(edges);
        symbols[order[i]] = first + rank;
        if (rank === edges.length - 2) escaped.push(order[i]);
      }
    });
    for (const place of escaped) symbols[place] = ESCAPED_MIN + this.#take(ESCAPE);
    return symbols;
  }

  /** The rank of the next symbol: edges[rank] <= quantile < edges[rank + 1]. */
  #take(edges) {
    const [high, low] = this.#offset;
    const scale = this.#range[0] * 256 + (this.#range[1] >>> 24); // range >> 24
    // quantile, rest = divmod(offset, scale)
    const upper = high * 2 ** 20 + (low >>> 12);
    const first = Math.floor(upper / scale);
    const lower = (upper - first * scale) * 4096 + (low & 4095);
    const second = Math.floor(lower / scale);
    const quantile = first * 4096 + second;
    if (quantile >= TOTAL) {
      throw new UserError("StreamError", "the stream is damaged: it holds words that no encoder writes");
    }
    let [rank, above] = [0, edges.length - 1];
    while (above - rank > 1) {
      const middle = (rank + above) >> 1;
      if (edges[middle] <= quantile) rank = middle;
      else above = middle;
    }
    multiply(quantile - edges[rank], scale, lower - second * scale, this.#offset);
    multiply(edges[rank + 1] - edges[rank], scale, 0, this.#range);
    if (this.#range[0] === 0) {
      this.#range[0] = this.#range[1];
      this.#range[1] = 0;
      this.#offset[0] = this.#offset[1];
      this.#offset[1] = this.#word();
    }
    return rank;
  }

  /** The next 32 bits, big-endian; zeros after the end. */
  #word() {
    let word = 0;
    for (let i = 0; i < 4; i++) word = word * 256 + (this.#bytes[this.#at++] ?? 0);
    return word;
  }
}

/** a * scale + rest as halves, for a <= 2^24, scale < 2^40 and rest < 2^40. */
function multiply(a, scale, rest, halves) {
  const upper = Math.floor(scale / 2 ** 20);
  const product = a * upper; // in units of 2^20
  const whole = Math.floor(product / 4096);
  const low = (product - whole * 4096) * 2 ** 20 + a * (scale - upper * 2 ** 20) + rest;
  const carry = Math.floor(low / HALF);
  halves[0] = whole + carry;
  halves[1] = low - carry * HALF;
}
