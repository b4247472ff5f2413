// The .clic file, versions 1 and 2: docs/format.md, and clic_jax/files/container.py, which this follows.
//
//   | C1 49 43 | v | model id | width | height | quality | size | z | pqf | latents | stream | extras | check |
//        3       1      4       varint  varint   varint  varint  1   0,1      3       size      0..       3   bytes

import { UserError, checksum, damaged, truncated } from "./checks.js";
import { inflate } from "./png.js";
import { sizeOf } from "./streams.js";

const MAGIC = [0xc1, 0x49, 0x43];
const [LEARNED, CLASSICAL] = [1, 2]; // versions
const [GREY, PQF, EXTRAS, UNUSED] = [1, 2, 4, 8]; // flags
const CODECS = { avif: 0, webp: PQF, jpegxl: UNUSED }; // flags of version 2
const MAX_SIDE = 2 ** 20;
const MAX_ICC = 2 ** 24;
const MAX_EXIF = 2 ** 24;
const [ALPHA, ICC, EXIF] = [1, 129, 130]; // tags of the extras

/**
 * A file taken apart and checked: {width, height, quality, modelId, latentsCheck, grey, filtered, classical, stream,
 * alpha, icc, exif}. `alpha` is a PNG, `icc` still deflated; each is undefined where the file has none. Of a classical
 * picture `classical` is its codec, and there is no model.
 *
 * Throws a UserError of its own kind for each thing that can be wrong.
 */
export async function unpack(data, maxPixels) {
  const { chunks, ...file } = parse(data);
  if (file.width * file.height > maxPixels) {
    const limit = `${file.width} x ${file.height} pixels are more than this page's limit of ${maxPixels}`;
    throw new UserError("TooLarge", `${limit}: decode it with clic-jax`);
  }
  for (const tag of chunks.keys()) {
    if (tag < 128 && tag !== ALPHA) throw unknown(`the file needs the feature ${tag}, which this page lacks`);
  }
  const icc = chunks.get(ICC);
  if (icc && !(await inflate(icc, MAX_ICC))) {
    throw damaged(`its ICC profile has more than ${MAX_ICC} bytes or is not deflated`);
  }
  const exif = chunks.get(EXIF);
  if (exif && exif.length > MAX_EXIF) throw damaged(`its EXIF data have more than ${MAX_EXIF} bytes`);
  const size = file.classical && sizeOf(file.classical, file.stream);
  if (file.classical && !(size && size[0] === file.width && size[1] === file.height)) {
    throw damaged(`its ${file.classical} picture is none of ${file.width} x ${file.height} pixels`);
  }
  return { ...file, alpha: chunks.get(ALPHA), icc, exif };
}

/** All of a file, checked but for the limit of pixels, the tags and what is in the chunks. */
function parse(data) {
  if (!MAGIC.slice(0, data.length).every((byte, i) => data[i] === byte)) {
    throw new UserError("NotClic", "not a .clic file: it starts with other bytes");
  }
  const reader = new Reader(data);
  const v = reader.take(4)[3];
  const [flags, version] = [v >> 4, v & 15];
  if (version !== LEARNED && version !== CLASSICAL) {
    throw unknown(`the file has format version ${version}, this page reads ${LEARNED} to ${CLASSICAL}`);
  }
  const learned = version === LEARNED;
  const modelId = learned ? Array.from(reader.take(4), (b) => b.toString(16).padStart(2, "0")).join("") : null;
  const [width, height, quality, size] = [reader.varint(), reader.varint(), reader.quality(), reader.varint()];
  const filtered = learned && Boolean(flags & PQF);
  const parts = (learned ? reader.rough() : 0) + (filtered ? reader.rough() : 0);
  const latentsCheck = learned ? reader.check() : null;
  const stream = reader.take(size);
  const chunks = flags & EXTRAS ? readChunks(reader) : new Map();
  const end = reader.at;
  if (reader.check() !== checksum(data.subarray(0, end))) throw damaged("its checksum is wrong"); // before all values
  if (reader.at < data.length) {
    const more = `${data.length - reader.at} bytes too many at the end`;
    throw new UserError("TrailingBytes", `${more}: cut the file to ${reader.at} bytes`);
  }
  const codec = Object.keys(CODECS).find((name) => CODECS[name] === (flags & (PQF | UNUSED)));
  if (!codec || (learned && flags & UNUSED)) throw unknown("the file has a flag that this page does not know");
  if (Math.max(width, height) > MAX_SIDE) {
    const text = `a side has more than ${MAX_SIDE} pixels: no version of clic_jax writes such a file`;
    throw new UserError("TooLarge", text);
  }
  if (parts > stream.length) throw damaged("parts of its stream are larger than the stream");
  if (!(width >= 1 && height >= 1)) throw damaged(`it has ${width} x ${height} pixels`);
  if (!(quality >= 1 && quality <= 100)) throw damaged("its quality is out of range");
  const classical = learned ? null : codec;
  const grey = Boolean(flags & GREY);
  return { width, height, quality, modelId, latentsCheck, grey, filtered, classical, stream, chunks };
}

function unknown(text) {
  return new UserError("UnknownVersion", `${text}: build it anew from the newest clic_jax`);
}

/** The chunks as stored, by tag. */
function readChunks(reader) {
  const chunks = new Map();
  let last = 0;
  for (let tag = reader.take(1)[0]; tag; tag = reader.take(1)[0]) {
    if (tag <= last) throw damaged("its extras are empty or not in order");
    chunks.set(tag, reader.take(reader.varint()));
    last = tag;
  }
  if (!chunks.size) throw damaged("its extras are empty or not in order");
  return chunks;
}

/** Takes numbers and bytes from the front of `data`. */
class Reader {
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  take(size) {
    const start = this.at;
    this.at += size;
    if (this.at > this.data.length) throw truncated(this.data.length, this.at);
    return this.data.subarray(start, this.at);
  }

  varint() {
    let value = 0;
    for (let shift = 0; shift < 63; shift += 7) {
      const byte = this.take(1)[0];
      value += (byte & 127) * 2 ** shift; // above 2^53 no longer exact, and larger than any file
      if (byte === 0 && shift) break; // a second way to write a shorter number
      if (byte < 128) return value;
    }
    throw damaged(`the number that ends at byte ${this.at} has too many digits`);
  }

  /** A count of bytes, rounded: a high half E > 0 and a low half M mean (16 + M) 2^(E-1). */
  rough() {
    const byte = this.take(1)[0];
    return byte >> 4 ? (16 + (byte & 15)) * 2 ** ((byte >> 4) - 1) : byte;
  }

  /** Its whole part plus 128 times its hundredths; 0, which is refused after the checksum, for too many of these. */
  quality() {
    const value = this.varint();
    const hundredths = Math.floor(value / 128);
    return hundredths < 100 ? (100 * (value % 128) + hundredths) / 100 : 0;
  }

  check() {
    const [low, middle, high] = this.take(3);
    return low | (middle << 8) | (high << 16);
  }
}
