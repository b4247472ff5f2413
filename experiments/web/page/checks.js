// What is refused, and the checksums by which damage is found.

/** Bad input: one line that says what is wrong and how to mend it. `kind` is the name of the exception in Python. */
export class UserError extends Error {
  constructor(kind, text) {
    super(text);
    this.kind = kind;
  }
}

const AGAIN = "copy or download the file again";

/** A UserError of the kind Damaged; `what` ends "damaged, for ...". */
export function damaged(what) {
  return new UserError("Damaged", `damaged, for ${what}: ${AGAIN}`);
}

/** A UserError of the kind Truncated. */
export function truncated(there, needed) {
  return new UserError("Truncated", `cut short, ${there} of at least ${needed} bytes are there: ${AGAIN}`);
}

const CRC = new Uint32Array(256).map((_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0xedb88320 : 0);
  return byte;
});

/** zlib's CRC-32 of bytes, which goes on from `crc`. */
export function crc32(bytes, crc = 0) {
  crc = ~crc;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The low 24 bits of the CRC-32 of several arrays of bytes, as if they were joined. */
export function checksum(...parts) {
  return parts.reduce((crc, part) => crc32(part, crc), 0) & 0xffffff;
}
