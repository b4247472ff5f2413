// Large pictures in overlapping tiles, cross-faded where they overlap: clic_jax/coding/tiles.py.

const UNIT = 64; // pixels; tiles start and end at multiples of it
const OVERLAP = 2 * UNIT;
export const TILE = 16 * UNIT; // the largest side

/** The tiles along an axis: [{start, stop, weight}], equally long; the weights of all add up to 1 at each pixel. */
export function spans(size, tile) {
  if (size <= tile) return [{ start: 0, stop: size, weight: new Float32Array(size).fill(1) }];
  const count = Math.ceil((size - OVERLAP) / (tile - OVERLAP));
  const length = Math.ceil((size + (count - 1) * OVERLAP) / count / UNIT) * UNIT;
  const starts = Array.from({ length: count }, (_, i) => {
    return Math.floor(Math.floor(((size - length) * i) / (count - 1)) / UNIT) * UNIT;
  });
  const found = starts.map((start) => ({ start, stop: start + length, weight: new Float32Array(length).fill(1) }));
  for (let i = 1; i < count; i++) {
    const [before, after] = [found[i - 1].weight, found[i].weight];
    const overlap = starts[i - 1] + length - starts[i];
    for (let p = 0; p < overlap; p++) {
      const rise = Math.min(Math.max((2 * (p + 0.5)) / overlap - 0.5, 0), 1); // over the middle half
      after[p] *= rise;
      before[length - overlap + p] *= 1 - rise;
    }
  }
  return found;
}

/**
 * The picture Uint8ClampedArray [height, width, 3] of `synthesise`: async (rows, columns) -> Float32Array [h, w, 3] of
 * the tile at these spans, over a padded picture of [fullHeight, fullWidth]. watch: (tiles done, of all).
 */
export async function assemble(synthesise, fullHeight, fullWidth, height, width, tile, watch) {
  const [down, across] = [spans(fullHeight, tile), spans(fullWidth, tile)];
  const sum = new Float32Array(height * width * 3);
  let done = 0;
  for (const rows of down) {
    for (const columns of across) {
      watch(done++, down.length * across.length);
      const part = await synthesise(rows, columns);
      const w = columns.stop - columns.start;
      for (let y = rows.start; y < Math.min(rows.stop, height); y++) {
        for (let x = columns.start; x < Math.min(columns.stop, width); x++) {
          const weight = rows.weight[y - rows.start] * columns.weight[x - columns.start];
          const from = ((y - rows.start) * w + x - columns.start) * 3;
          for (let c = 0; c < 3; c++) {
            sum[(y * width + x) * 3 + c] += weight * Math.min(Math.max(part[from + c], 0), 255);
          }
        }
      }
    }
  }
  return new Uint8ClampedArray(sum); // rounds, halves to even
}
