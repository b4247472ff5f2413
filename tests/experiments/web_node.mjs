// Runs the modules of a page in Node: `node web_node.mjs SITE`, for tests/experiments/test_web.py.
//
// Reads lines of JSON, [what, arguments], what one of TASKS below. Prints a line of JSON for each: what it gives, or
// {kind, text} of a UserError. Bytes are base64.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const site = `${pathToFileURL(process.argv[2])}/`;
const module = (name) => import(`${site}${name}.js`);
const { unpack } = await module("container");
const { decode, MAX_PIXELS } = await module("decode");
const { interleaved, run } = await module("integers");
const { openLibrary } = await module("models");
const { readGrey, write } = await module("png");
const { RangeDecoder } = await module("range_decoder");
const { sizeOf, toFile } = await module("streams");
const { spans } = await module("tiles");

async function read(path, integrity) {
  const bytes = readFileSync(new URL(path, site));
  const found = `sha256-${createHash("sha256").update(bytes).digest("base64")}`;
  if (integrity !== undefined && found !== integrity) throw new Error(`${path} has the hash ${found}`);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

const open = await openLibrary(read);
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const text = (array) => Buffer.from(array).toString("base64");

const TASKS = {
  async decode({ data, png, tile }) {
    const result = await decode(bytes(data), { open, tile });
    if (png) writeFileSync(png, result.png);
    const { width, height, quality, modelId, modelName, grey, filtered } = result.header;
    return { header: { width, height, quality, modelId, modelName, grey, filtered }, seconds: result.seconds };
  },
  async unpack({ data }) {
    const { stream, width, height, quality, classical } = await unpack(bytes(data), MAX_PIXELS);
    return { stream: text(stream), width, height, quality, classical };
  },
  symbols({ stream, calls }) {
    const decoder = new RangeDecoder(bytes(stream));
    const asTable = ({ first, edges }) => ({ first, edges: Uint32Array.from(edges) });
    return calls.map(({ index, tables }) => [...decoder.decode(index, tables.map(asTable))]);
  },
  convolution({ layer, x, h, w, where }) {
    const kernels = interleaved(layer.kernel, layer.fine, layer.outputs);
    return [...run([{ ...layer, kernels }], Int32Array.from(x), h, w, { where }).x];
  },
  spans({ size, tile }) {
    return spans(size, tile).map((span) => ({ ...span, weight: text(new Uint8Array(span.weight.buffer)) }));
  },
  size({ name, stream }) {
    return sizeOf(name, bytes(stream));
  },
  file({ name, stream, width, height }) {
    return text(toFile(name, bytes(stream), width, height));
  },
  async png({ samples, width, height, icc, exif }) {
    return text(await write(bytes(samples), width, height, { icc: icc && bytes(icc), exif: exif && bytes(exif) }));
  },
  async grey({ png, width, height }) {
    const samples = await readGrey(bytes(png), width, height);
    return samples && text(samples);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [what, task] = JSON.parse(line);
  let found;
  try {
    found = await TASKS[what](task);
  } catch (error) {
    if (!error.kind) throw error;
    found = { kind: error.kind, text: error.message };
  }
  console.log(JSON.stringify(found));
}
