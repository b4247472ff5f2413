// Decodes beside the page, so that this stays responsive. In: bytes of a file. Out, one or more of: {text, share} of
// what is being done, and at the end {header, png, seconds} or {error}.

import { UserError } from "./checks.js";
import { classical } from "./classical.js";
import { decode } from "./decode.js";
import { openLibrary } from "./models.js";

let library = null;

/** The model of an id; the list of models is read once. */
async function open(id) {
  library ??= openLibrary(read);
  library.catch(() => (library = null)); // a network that fails may work the next time
  return (await library)(id);
}

async function read(path, integrity) {
  const response = await fetch(path, { integrity: integrity ?? "", cache: "no-cache" }).catch(() => null);
  if (!response?.ok) {
    const text = `${path} of this page cannot be read or has changed: load the page again`;
    throw new UserError("Network", text);
  }
  return response.arrayBuffer();
}

// While a file is being chosen: most of what a first picture waits for is WebAssembly being compiled.
open()
  .then((model) => model.transforms.prepare())
  .catch(() => {}); // a file that needs it will tell

function described(error) {
  if (error instanceof UserError) return error.message;
  if (error instanceof RangeError && /alloc|length/i.test(error.message)) {
    return "the picture needs more memory than this browser has: decode it with clic-jax";
  }
  return `this should not happen, please report this line and the file: ${error}`;
}

addEventListener("message", async ({ data }) => {
  try {
    const watch = (text, share) => postMessage({ text, share });
    const { header, png, seconds } = await decode(data, { open, classical, watch });
    const { width, height, quality, modelId, modelName, grey, alpha, icc, exif, classical: codec } = header;
    const about = { width, height, quality, modelId, modelName, codec };
    const kept = { grey, alpha: Boolean(alpha), icc: Boolean(icc), exif: Boolean(exif) };
    postMessage({ header: { ...about, ...kept }, png, seconds }, [png.buffer]);
  } catch (error) {
    postMessage({ error: described(error) });
  }
});
