// Decodes files with the modules of a page, in Node: `node web_decode.mjs SITE < TASKS`, for tests/experiments/test_web.py.
//
// TASKS: JSON, [{file, png, tile}]; png, the file to write, and tile may be missing. Prints a line of JSON for each:
// {kind, text} of a UserError, or {header, seconds}.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const site = `${pathToFileURL(process.argv[2])}/`;
const { decode } = await import(`${site}decode.js`);
const { openLibrary } = await import(`${site}models.js`);

async function read(path, integrity) {
  const bytes = readFileSync(new URL(path, site));
  const found = `sha256-${createHash("sha256").update(bytes).digest("base64")}`;
  if (integrity !== undefined && found !== integrity) throw new Error(`${path} has the hash ${found}`);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

const open = await openLibrary(read);
for (const { file, png, tile } of JSON.parse(readFileSync(0))) {
  let told;
  try {
    const result = await decode(new Uint8Array(readFileSync(file)), { open, tile });
    if (png) writeFileSync(png, result.png);
    const { width, height, quality, modelId, modelName, grey, filtered } = result.header;
    told = { header: { width, height, quality, modelId, modelName, grey, filtered }, seconds: result.seconds };
  } catch (error) {
    if (!error.kind) throw error;
    told = { kind: error.kind, text: error.message };
  }
  console.log(JSON.stringify(told));
}
