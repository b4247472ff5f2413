// The page: takes a file, has worker.js decode it, and shows what comes of it.

const element = (id) => document.getElementById(id);
const MAX_BYTES = 2 ** 30;
const PARTS = { model: "opening the model", symbols: "symbols", filter: "filter", picture: "picture", png: "PNG" };
const CODECS = { avif: "AVIF", webp: "WebP", jpegxl: "JPEG XL" };

let worker = started();
let busy = false;
let address = ""; // of the PNG that is shown

function started() {
  const made = new Worker("worker.js", { type: "module" });
  made.onerror = () => {
    if (made === worker) worker = null; // the next file tries again, and tells
  };
  return made;
}

/** Decodes a File; what was being decoded until then is given up. */
async function open(file) {
  if (busy || !worker) {
    worker?.terminate();
    worker = started();
  }
  busy = true;
  element("error").hidden = true;
  element("result").hidden = true;
  progress("reading the file", 0);
  const own = worker;
  const start = performance.now();
  own.onmessage = ({ data }) => {
    if (data.text) return progress(data.text, data.share);
    if (data.error) return fail(file, data.error);
    show(file, data, (performance.now() - start) / 1000);
  };
  own.onerror = (event) => {
    worker = null;
    fail(file, `the decoder could not start (${event.message ?? "its files cannot be read"}): load the page again`);
  };
  if (file.size > MAX_BYTES) return fail(file, `it has more than ${MAX_BYTES} bytes`);
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (own === worker) own.postMessage(bytes, [bytes.buffer]);
  } catch {
    if (own === worker) fail(file, "it cannot be read: choose it again");
  }
}

function progress(text, share) {
  element("status").hidden = false;
  element("progress").value = share;
  element("doing").textContent = `${text} ...`;
}

function fail(file, text) {
  busy = false;
  element("status").hidden = true;
  element("error").textContent = `${file.name}: ${text}`;
  element("error").hidden = false;
}

function show(file, { header, png, seconds }, total) {
  busy = false;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([png], { type: "image/png" }));
  const picture = element("picture");
  picture.src = address;
  picture.alt = `The picture in ${file.name}`;
  picture.dataset.width = header.width;
  element("save").href = address;
  element("save").download = `${file.name.replace(/\.clic$/i, "")}.png`;
  facts(file, header, seconds, total);
  element("status").hidden = true;
  element("result").hidden = false;
  zoom(true);
}

function facts(file, header, seconds, total) {
  const pixels = header.width * header.height;
  const kept = [
    header.alpha && "transparency",
    header.icc && "colour profile",
    header.exif && "EXIF data",
  ].filter(Boolean);
  const parts = Object.entries(seconds)
    .filter(([, value]) => value >= 0.005)
    .map(([name, value]) => `${PARTS[name]} ${value.toFixed(2)}`);
  const rows = {
    File: file.name,
    Picture: `${header.width} x ${header.height} pixels${header.grey ? ", grey" : ""}`,
    Size: `${file.size.toLocaleString("en")} bytes, ${((8 * file.size) / pixels).toFixed(3)} bits per pixel`,
    Quality: String(header.quality),
    "Coded by": header.codec ? CODECS[header.codec] : `${header.modelName} (model ${header.modelId})`,
    ...(kept.length ? { "With it": kept.join(", ") } : {}),
    Decoded: `in ${total.toFixed(2)} s: ${parts.join(", ")}`,
  };
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const cells = Object.entries(rows).flatMap(([name, value]) => [cell("dt", name), cell("dd", value)]);
  element("facts").replaceChildren(...cells);
}

/** The whole picture in the window, or one of its pixels to one of the screen. */
function zoom(fit) {
  element("fit").setAttribute("aria-pressed", fit);
  element("full").setAttribute("aria-pressed", !fit);
  element("stage").classList.toggle("fit", fit);
  const picture = element("picture");
  picture.style.width = fit ? "" : `${picture.dataset.width / devicePixelRatio}px`;
}

element("fit").addEventListener("click", () => zoom(true));
element("full").addEventListener("click", () => zoom(false));
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) open(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
