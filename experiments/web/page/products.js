// Sums of products of 16-bit integers in WebAssembly, eight products an instruction (which onnxruntime-web needs, too).
//
// The module has one function and a memory. sums(a, b, end, out) adds up the products of four rows at `a` with the two
// rows at `b`, up to `end`, in int32: exact where no sum passes 2^31, as the kernels' scales see to. Rows lie eight
// numbers at a time next to each other:
//
//   a   x0[0..7] x1[0..7] x2[0..7] x3[0..7]   x0[8..15] ...      b   k0[0..7] k1[0..7]   k0[8..15] ...
//   out   for each of x0 k0, x0 k1, x1 k0, ... four int32, whose sum is the product

export const LANES = 8;
export const ROWS = 4;
const [A, B, END, OUT, LEFT, FIRST, SECOND, SUM] = [0, 1, 2, 3, 4, 5, 6, 7]; // locals; SUM is the first of eight

const get = (local) => [0x20, local];
const set = (local) => [0x21, local];
const simd = (operation) => [0xfd, ...operation];
const load = (address, offset) => [...get(address), ...simd([0x00, 4, offset])]; // v128.load
const step = (address, size) => [...get(address), 0x41, ...size, 0x6a, ...set(address)]; // address += size
const multiplied = (sum, with_) => [
  ...get(LEFT),
  ...get(with_),
  ...simd([0xba, 0x01]), // i32x4.dot_i16x8_s
  ...get(sum),
  ...simd([0xae, 0x01]), // i32x4.add
  ...set(sum),
];
const row = (i) => [
  ...load(A, 16 * i),
  ...set(LEFT),
  ...multiplied(SUM + 2 * i, FIRST),
  ...multiplied(SUM + 2 * i + 1, SECOND),
];
const store = (i) => [...get(OUT), ...get(SUM + i), ...simd([0x0b, 4, 16 * i])];
const range = (n) => [...Array(n).keys()];

const body = [
  ...[1, 3 + 2 * ROWS, 0x7b], // locals of type v128
  ...[0x03, 0x40], // loop
  ...[...load(B, 0), ...set(FIRST), ...load(B, 16), ...set(SECOND)],
  ...range(ROWS).flatMap(row),
  ...[...step(A, [0xc0, 0x00]), ...step(B, [0x20])], // 64 and 32 bytes
  ...[...get(B), ...get(END), 0x47, 0x0d, 0], // again, if b != end
  0x0b,
  ...range(2 * ROWS).flatMap(store),
  0x0b,
];

const size = (n) => (n < 128 ? [n] : [(n & 127) | 128, n >> 7]); // a varint
const section = (id, ...contents) => [id, ...size(contents.length), ...contents];
const name = (text) => [text.length, ...Array.from(text, (letter) => letter.charCodeAt(0))];

const MODULE = Uint8Array.from([
  ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...section(1, 1, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 0), // a type: four i32 to nothing
  ...section(3, 1, 0), // a function of it
  ...section(5, 1, 0, 1), // a memory of a page or more
  ...section(7, 2, ...name("sums"), 0, 0, ...name("memory"), 2, 0),
  ...section(10, 1, ...size(body.length), ...body),
]);

export const { sums, memory } = new WebAssembly.Instance(new WebAssembly.Module(MODULE)).exports;

/** The memory as 16-bit and 32-bit integers, of `bytes` or more. */
export function views(bytes) {
  const missing = bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  return { i16: new Int16Array(memory.buffer), i32: new Int32Array(memory.buffer) };
}
