// From the bytes of a .clic file to those of a PNG: what the page and the tests call.

import { UserError, checksum, damaged } from "./checks.js";
import { unpack } from "./container.js";
import { readGrey, write } from "./png.js";
import { RangeDecoder } from "./range_decoder.js";
import { Y_BITS, codeSlices, indexGain } from "./schedule.js";

export const MAX_PIXELS = 2 ** 26; // a few header bytes shall not ask for more memory than a browser has
const STRIDE = 64; // of z
const FEW_BITS = 128; // by which a stream may be shorter than its symbols say

/**
 * {header, png, seconds}: what the file says of itself, the picture as a PNG file, and the seconds of each part.
 *
 * open: (model id) -> a model, of `openLibrary`. classical: async (codec, stream, width, height) -> samples
 * [height, width, 3]. watch: (text, share done) is told what is being done. tile: the largest side of a tile.
 * Throws a UserError for what is wrong with the file.
 */
export async function decode(data, { open, classical, watch = () => {}, tile }) {
  const clock = stopwatch();
  const header = await unpack(data, MAX_PIXELS);
  const { width, height } = header;
  let rgb;
  if (header.classical) {
    rgb = await clock("picture", () => classical(header.classical, header.stream, width, height));
  } else {
    watch("opening the model", 0);
    const model = await clock("model", () => open(header.modelId));
    header.modelName = model.name;
    rgb = await learned(model, header, clock, watch, tile);
  }
  watch("writing the PNG", 0.95);
  const png = await clock("png", async () => {
    const samples = await shown(rgb, header);
    return write(samples, width, height, header);
  });
  return { header, png, seconds: clock.seconds };
}

/** The picture Uint8ClampedArray [height, width, 3] in a model's stream. */
async function learned(model, header, clock, watch, tile) {
  const { width, height, stream } = header;
  if (header.filtered && !model.pqf_basis) {
    throw damaged("its model has no filter to use its coefficients");
  }
  const [zHigh, zWide] = [Math.ceil(height / STRIDE), Math.ceil(width / STRIDE)];
  if (8 * stream.length < (zHigh * zWide * model.least_bits) / 2 - FEW_BITS) {
    throw damaged(`${width} x ${height} pixels are not in ${stream.length} bytes`);
  }
  const [h, w] = [4 * zHigh, 4 * zWide];
  const decoder = new RangeDecoder(stream);
  const { yHat, z } = await clock("symbols", () => latents(model, header, decoder, h, w, watch));
  if (header.filtered) {
    await clock("filter", () => {
      const read = (count) => decoder.decode(new Uint8Array(count), [model.coefficients]);
      return model.transforms.filter(yHat, h, w, read);
    });
  }
  const tiles = (done, all) => watch("making the picture", 0.5 + (0.4 * done) / all);
  return clock("picture", () => model.transforms.picture(yHat, z, h, w, header, tiles, tile));
}

/** {yHat Float32Array [h * w, M], z Int32Array}, of symbols that are those which were encoded. */
function latents(model, header, decoder, h, w, watch) {
  const channels = model.prior.length;
  const zIndex = Uint16Array.from({ length: ((h * w) / 16) * channels }, (_, i) => i % channels);
  const z = decoder.decode(zIndex, model.prior);
  const symbols = [z];
  const gain = indexGain(model, header.quality);
  const slices = codeSlices(model, z, h, w, gain, (k, mean, index) => {
    watch("reading", (0.5 * symbols.length) / (2 * model.groups.length));
    const q = decoder.decode(index, model.tables[k]);
    symbols.push(q);
    return q.map((value, i) => (value << Y_BITS) + mean[i]);
  });
  const found = checksum(...symbols.map((values) => new Uint8Array(littleEndian(values))));
  if (found !== header.latentsCheck) {
    const sums = [header.latentsCheck, found].map((sum) => sum.toString(16).padStart(6, "0")).join(", ");
    const text = "decoder out of step, so there is no picture: please report this line and the file";
    throw new UserError("Desync", `${text} (${sums}, JavaScript)`);
  }
  return { yHat: model.transforms.inSteps(slices, h, w), z };
}

/** Symbols as the 16-bit integers over which their checksum goes. */
function littleEndian(values) {
  const view = new DataView(new ArrayBuffer(2 * values.length));
  values.forEach((value, i) => view.setInt16(2 * i, value, true));
  return view.buffer;
}

/** rgb [height, width, 3] as the source was: grey if it was, and with its alpha plane. */
async function shown(rgb, { grey, alpha, width, height }) {
  const plane = alpha && (await readGrey(alpha, width, height));
  if (alpha && !plane) throw damaged("its transparency plane cannot be read");
  if (!grey && !plane) return rgb;
  const all = (grey ? 1 : 3) + (plane ? 1 : 0);
  const samples = new Uint8Array(width * height * all);
  for (let i = 0; i < width * height; i++) {
    if (grey) samples[i * all] = Math.floor((rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2] + 1) / 3);
    for (let c = 0; c < 3 && !grey; c++) samples[i * all + c] = rgb[3 * i + c];
    if (plane) samples[i * all + all - 1] = plane[i];
  }
  return samples;
}

/** (name, work) -> what the work gives; its seconds are added up in `seconds`. */
function stopwatch() {
  const clock = async (name, work) => {
    const start = performance.now();
    const result = await work();
    clock.seconds[name] = (clock.seconds[name] ?? 0) + (performance.now() - start) / 1000;
    return result;
  };
  clock.seconds = {};
  return clock;
}
