// PNG files: the decoded picture is written as one, exactly, with its transparency, ICC profile and EXIF data; and the
// transparency of a .clic file is read from one. A canvas would do neither without changing samples.

import { crc32 } from "./checks.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const PAETH = 4; // the filter of all rows that are written

/** What zlib deflated, at most `most` bytes of it; null for more, and for what is not deflated. */
export async function inflate(bytes, most) {
  try {
    const parts = [];
    let size = 0;
    for await (const part of chunksOf(bytes, new DecompressionStream("deflate"))) {
      size += part.length;
      if (size > most) return null;
      parts.push(part);
    }
    return joined(parts);
  } catch {
    return null;
  }
}

/** Samples Uint8Array or Uint8ClampedArray [height, width, 1 to 4]; icc: deflated. The bytes of a PNG file. */
export async function write(samples, width, height, { icc, exif } = {}) {
  const channels = samples.length / (width * height);
  const parts = [];
  for await (const part of chunksOf(filtered(samples, width, height, channels), new CompressionStream("deflate"))) {
    parts.push(part);
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8, [0, 4, 2, 6][channels - 1]], 8); // bits, and grey, grey and alpha, RGB, RGBA
  const prefix = [0x45, 0x78, 0x69, 0x66, 0, 0]; // "Exif", which JPEGs have before their EXIF data and PNGs do not
  const bare = exif && prefix.every((byte, i) => exif[i] === byte) ? exif.subarray(6) : exif;
  return joined([
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    ...(icc ? [chunk("iCCP", joined([Uint8Array.from([0x49, 0x43, 0x43, 0, 0]), icc]))] : []), // its name, deflated
    ...(bare ? [chunk("eXIf", bare)] : []),
    chunk("IDAT", joined(parts)),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

/** The samples Uint8Array [height * width] of a PNG of that size with 8 bits of grey, not interlaced; else null. */
export async function readGrey(file, width, height) {
  if (!SIGNATURE.every((byte, i) => file[i] === byte)) return null;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const data = [];
  for (let at = 8, kind = ""; kind !== "IEND"; ) {
    const size = at + 12 <= file.length ? view.getUint32(at) : Infinity;
    if (at + 12 + size > file.length) return null;
    kind = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const contents = file.subarray(at + 8, at + 8 + size);
    if (view.getUint32(at + 8 + size) !== crc32(file.subarray(at + 4, at + 8 + size))) return null;
    if (kind === "IHDR") {
      const [w, h] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      const plain = [8, 0, 0, 0, 0].every((byte, i) => contents[8 + i] === byte);
      if (size !== 13 || w !== width || h !== height || !plain) return null;
    }
    if (kind === "IDAT") data.push(contents);
    at += 12 + size;
  }
  const rows = await inflate(joined(data), (width + 1) * height);
  return rows && rows.length === (width + 1) * height ? unfiltered(rows, width, height) : null;
}

/** All bytes that go through a stream, in parts. */
async function* chunksOf(bytes, through) {
  const reader = new Blob([bytes]).stream().pipeThrough(through).getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) yield value;
}

export function joined(parts) {
  const result = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

function chunk(kind, contents) {
  const bytes = new Uint8Array(contents.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, contents.length);
  bytes.set(Array.from(kind, (letter) => letter.charCodeAt(0)), 4);
  bytes.set(contents, 8);
  view.setUint32(contents.length + 8, crc32(bytes.subarray(4, contents.length + 8)));
  return bytes;
}

/** Rows with the number of their filter in front. */
function filtered(samples, width, height, channels) {
  const stride = width * channels;
  const result = new Uint8Array((stride + 1) * height);
  for (let y = 0, at = 0, to = 0; y < height; y++) {
    result[to++] = PAETH;
    for (let x = 0; x < stride; x++, at++) {
      const left = x >= channels ? samples[at - channels] : 0;
      const above = y ? samples[at - stride] : 0;
      const corner = x >= channels && y ? samples[at - channels - stride] : 0;
      result[to++] = samples[at] - paeth(left, above, corner);
    }
  }
  return result;
}

/** Undoes the filters of rows of one channel; null for one that is unknown. */
function unfiltered(rows, width, height) {
  const samples = new Uint8Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    const filter = rows[y * (width + 1)];
    if (filter > 4) return null;
    for (let x = 0; x < width; x++, at++) {
      const left = x ? samples[at - 1] : 0;
      const above = y ? samples[at - width] : 0;
      const corner = x && y ? samples[at - width - 1] : 0;
      const predicted =
        filter === PAETH ? paeth(left, above, corner) : [0, left, above, (left + above) >> 1][filter];
      samples[at] = rows[y * (width + 1) + 1 + x] + predicted;
    }
  }
  return samples;
}

/** Whichever of the three is nearest to left + above - corner. */
function paeth(left, above, corner) {
  const [a, b] = [Math.abs(above - corner), Math.abs(left - corner)];
  const c = Math.abs(left + above - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
