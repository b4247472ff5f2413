// The float networks of a model, as ONNX graphs in onnxruntime-web: y_hat to a picture, and the filter's basis maps.

import * as ort from "./ort/ort.wasm.min.mjs";
import { Y_BITS, beside, between } from "./schedule.js";
import { TILE, assemble } from "./tiles.js";

ort.env.wasm.numThreads = 1; // more need a page that is isolated by its server's headers
ort.env.logLevel = "error";

const Y_STRIDE = 16; // pixels to one element of y
const STEP = 1 / 32; // of the filter's coefficients

/** The transforms of a model whose graphs are in `files`, {name: bytes}. Each is opened when it is first needed. */
export function transforms(model, files) {
  const sessions = {};

  const session = (name) => (sessions[name] ??= ort.InferenceSession.create(files[name]));

  /** Opens what every picture needs. */
  async function prepare() {
    for (const name of Object.keys(files).filter((file) => /^(g_s|feature)/.test(file))) await session(name);
  }

  async function call(name, data, dims) {
    const opened = await session(name);
    const tensor = new ort.Tensor("float32", data, dims);
    const outputs = await opened.run({ [opened.inputNames[0]]: tensor });
    return outputs[opened.outputNames[0]].data;
  }

  /** y_hat Float32Array [h * w, M] in quantisation steps, from its slices in 1/64. */
  function inSteps(decoded, h, w) {
    return beside(decoded, h * w, Float32Array).map((value) => value * 2 ** -Y_BITS);
  }

  /** Adds GuidedPQF's correction to the first channels of y_hat; read: (count) -> as many coefficients, integers. */
  async function filter(yHat, h, w, read) {
    const maps = await call("maps.onnx", yHat, [1, h, w, yHat.length / (h * w)]); // [1, h, w, n, A]
    const count = maps.length / (h * w);
    const coefficients = read(count);
    const [channels, basis] = [yHat.length / (h * w), model.pqf_basis];
    for (let i = 0; i < h * w; i++) {
      for (let n = 0; n < count; n++) {
        yHat[i * channels + Math.floor(n / basis)] += maps[i * count + n] * coefficients[n] * STEP;
      }
    }
  }

  /** The picture Uint8ClampedArray [height, width, 3] of y_hat and z. */
  async function picture(yHat, z, h, w, { height, width, quality }, watch, tile = TILE) {
    const gain = between(model.log_inverse_gain, model, quality).map(Math.exp);
    const channels = gain.length;
    const zDims = [1, h / 4, w / 4, z.length / ((h * w) / 16)];
    const feature = model.feature ? await call("feature.onnx", Float32Array.from(z), zDims) : new Float32Array(0);
    const extra = feature.length / (h * w);
    const synthesise = (rows, columns) => {
      const [top, left] = [rows.start / Y_STRIDE, columns.start / Y_STRIDE];
      const [high, wide] = [(rows.stop - rows.start) / Y_STRIDE, (columns.stop - columns.start) / Y_STRIDE];
      const input = new Float32Array(high * wide * (channels + extra));
      for (let y = 0, to = 0; y < high; y++) {
        for (let x = 0; x < wide; x++) {
          const place = (top + y) * w + left + x;
          for (let c = 0; c < channels; c++) input[to++] = yHat[place * channels + c] * gain[c];
          for (let c = 0; c < extra; c++) input[to++] = feature[place * extra + c];
        }
      }
      return call("g_s.onnx", input, [1, high, wide, channels + extra]);
    };
    return assemble(synthesise, h * Y_STRIDE, w * Y_STRIDE, height, width, tile, watch);
  }

  return { prepare, inSteps, filter, picture };
}
