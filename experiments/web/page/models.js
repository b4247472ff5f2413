// The models that the page was built with: models/models.json names them, and each has a folder of its id.

import { UserError } from "./checks.js";
import { interleaved } from "./integers.js";
import { transforms } from "./transforms.js";

const TYPES = { i1: Int8Array, i2: Int16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array };
const BUILD = "python -m experiments.web --model";

/**
 * async (id) -> a model, read once; by default the first one. read: async (path, integrity) -> ArrayBuffer of a file of
 * the page, which must have that hash ("sha256-...", as the attribute integrity of HTML has it; undefined for none).
 *
 * Throws a UserError of the kind ModelMismatch that says how to build in a model that is missing.
 */
export async function openLibrary(read) {
  const { built, released } = json(await read("models/models.json"));
  const opened = {};
  return async (id = built[0].id) => {
    const row = built.find((candidate) => candidate.id === id);
    if (!row) throw missing(id, built, released.find((candidate) => candidate.id === id));
    opened[id] ??= openModel(row, read);
    opened[id].catch(() => delete opened[id]); // a network that fails may work the next time
    return opened[id];
  };
}

function missing(id, built, row) {
  const names = [...built.map(({ name }) => name), row?.name ?? "FOLDER"].join(" ");
  const how = `${BUILD} ${names} --out site`;
  let text = `no model of that id was released: ${how} builds one in`;
  if (row?.status === "installed") text = `that is ${row.name}: ${how} builds it in`;
  if (row?.status === "retired") {
    text = `that is ${row.name} of ${row.date}, which is retired: decode with clic_jax as of its commit ${row.commit}`;
  }
  return new UserError("ModelMismatch", `it needs model ${id}, which this page was built without: ${text}`);
}

/** model.json with the typed arrays of arrays.bin in the place of [type, offset, length], and its graphs. */
async function openModel({ id, name, integrity }, read) {
  const model = json(await read(`models/${id}/model.json`, integrity));
  const names = Object.keys(model.integrity);
  const contents = await Promise.all(names.map((name) => read(`models/${id}/${name}`, model.integrity[name])));
  const files = Object.fromEntries(names.map((name, i) => [name, contents[i]]));
  const array = ([type, offset, length]) => new TYPES[type](files["arrays.bin"], offset, length);
  const optional = (reference) => reference && array(reference);
  const layer = ({ taps, inputs, outputs, kernel, fine, bias, shift, drop, activation }) => ({
    taps,
    inputs,
    outputs,
    kernels: interleaved(array(kernel), array(fine), outputs),
    bias: array(bias),
    shift: array(shift),
    drop: array(drop),
    activation: optional(activation),
  });
  const table = ({ first, edges }) => ({ first, edges: array(edges) });
  const stacks = Object.entries(model.stacks).map(([group, list]) => [group, list.map((s) => s.map(layer))]);
  const opened = {
    ...model,
    name,
    ...Object.fromEntries(stacks), // hyper, channel, spatial, parameters
    log_gain: optional(model.log_gain),
    log_inverse_gain: optional(model.log_inverse_gain),
    prior: model.prior.map(table),
    tables: model.tables.map((slice) => slice.map(table)),
    coefficients: table(model.coefficients),
  };
  return { ...opened, transforms: transforms(opened, files) };
}

function json(buffer) {
  return JSON.parse(new TextDecoder().decode(buffer));
}
