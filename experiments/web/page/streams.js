// What a .clic file holds of an AVIF, WebP or JPEG XL picture, and the file around it: clic_jax/files/streams.py.

import { joined } from "./png.js";

const LOSSLESS_WEBP = 0x2f; // the signature of VP8L; the first byte of a VP8 key frame is even
const RATIOS = [null, [1, 1], [12, 10], [4, 3], [3, 2], [16, 9], [5, 4], [2, 1]]; // of JPEG XL: width to height
export const TYPES = { avif: "image/avif", webp: "image/webp", jpegxl: "image/jxl" };

/** [width, height] of its picture, known before anything is decoded; null for what is no stream of that name. */
export function sizeOf(name, stream) {
  return { avif: avifSize, webp: webpSize, jpegxl: jpegxlSize }[name](stream);
}

/** The bytes of a file whose picture is that stream. */
export function toFile(name, stream, width, height) {
  if (name === "jpegxl") return stream;
  if (name === "avif") return avif(stream, width, height);
  const kind = stream[0] === LOSSLESS_WEBP ? "VP8L" : "VP8 ";
  const padding = stream.length % 2;
  const body = joined([text("WEBP"), text(kind), u32(stream.length, true), stream, new Uint8Array(padding)]);
  return joined([text("RIFF"), u32(body.length, true), body]);
}

/** As libavif writes it; 0x113 bytes are before the stream. */
function avif(stream, width, height) {
  const type = box("ftyp", text("avif"), hex("00000000"), text("avifmif1miafMA1A"));
  const handler = box("hdlr", new Uint8Array(8), text("pict"), new Uint8Array(13));
  const item = box("pitm", hex("00000000 0001"));
  const where = box("iloc", hex("00000000 4400 0001 0001 0000 0001 00000113"), u32(stream.length));
  const entry = box("infe", hex("02000000 0001 0000"), text("av01Color\0"));
  const entries = box("iinf", hex("00000000 0001"), entry);
  const size = box("ispe", hex("00000000"), u32(width), u32(height));
  const depth = box("pixi", hex("00000000 03080808"));
  const codec = box("av1C", hex("813f0000")); // profile 1, no limit of level, 4:4:4 of 8 bits
  const colours = box("colr", text("nclx"), hex("0001 000d 0006 80"));
  const used = box("ipma", hex("00000000 00000001 0001 04 01028304"));
  const properties = box("iprp", box("ipco", size, depth, codec, colours), used);
  const meta = box("meta", hex("00000000"), handler, item, where, entries, properties);
  return joined([type, meta, box("mdat", stream)]);
}

function box(kind, ...contents) {
  const body = joined(contents);
  return joined([u32(8 + body.length), text(kind), body]);
}

const text = (letters) => Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
const hex = (digits) => Uint8Array.from(digits.replaceAll(" ", "").match(/../g), (pair) => parseInt(pair, 16));

function u32(value, little = false) {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, little);
  return bytes;
}

/** A sequence header of a still picture, and one frame, as OBUs with their sizes. */
function avifSize(stream) {
  const header = obu(stream, 0x0a, 0);
  const frame = header && obu(stream, 0x32, header.end);
  if (!frame || frame.end !== stream.length || frame.start === frame.end) return null;
  const contents = stream.subarray(header.start, header.end);
  const take = bits(contents, (value, i) => (value >> (7 - i)) & 1, true);
  if (take(5) !== 0b00111) return null; // profile 1, a still picture, whose header is reduced
  take(5); // level
  const digits = [take(4) + 1, take(4) + 1];
  const size = [take(digits[0]) + 1, take(digits[1]) + 1];
  return take.short ? null : size;
}

/** Where the contents of the OBU of that kind at `at` start and end, or null. */
function obu(stream, kind, at) {
  if (stream[at] !== kind) return null;
  let size = 0;
  for (let shift = 0; shift <= 28; shift += 7) {
    const byte = stream[++at];
    if (byte === undefined) return null;
    size += (byte & 127) * 2 ** shift;
    if (byte < 128) break;
  }
  return { start: at + 1, end: at + 1 + size };
}

function webpSize(stream) {
  if (stream[0] === LOSSLESS_WEBP && stream.length >= 5) {
    const packed = new DataView(stream.buffer, stream.byteOffset).getUint32(1, true);
    return [(packed & 0x3fff) + 1, ((packed >>> 14) & 0x3fff) + 1];
  }
  const key = stream.length >= 10 && [0x9d, 0x01, 0x2a].every((byte, i) => stream[3 + i] === byte) && !(stream[0] & 1);
  return key ? [6, 8].map((at) => (stream[at] | (stream[at + 1] << 8)) & 0x3fff) : null;
}

function jpegxlSize(stream) {
  if (stream[0] !== 0xff || stream[1] !== 0x0a) return null;
  const take = bits(stream.subarray(2, 18), (value, i) => (value >> i) & 1, false);
  const small = take(1);
  const side = () => (small ? 8 * take(5) + 8 : take([9, 13, 18, 30][take(2)]) + 1);
  const height = side();
  const ratio = RATIOS[take(3)];
  const width = ratio ? Math.floor((height * ratio[0]) / ratio[1]) : side();
  return take.short ? null : [width, height];
}

/** A function that takes a count of bits from the front; its `short` is set at the end. bit: of a byte, the i-th. */
function bits(bytes, bit, highestFirst) {
  let at = 0;
  function take(count) {
    let value = 0;
    for (let i = 0; i < count; i++, at++) {
      take.short ||= at >> 3 >= bytes.length;
      const next = bit(bytes[at >> 3] ?? 0, at & 7);
      value = highestFirst ? 2 * value + next : value + next * 2 ** i;
    }
    return value;
  }
  return take;
}
