// Pictures of other codecs (version 2 of the file): the browser's own decoder makes them.

import { UserError, damaged } from "./checks.js";
import { TYPES, toFile } from "./streams.js";

/** The samples Uint8Array [height, width, 3] of a stream of avif, webp or jpegxl. Throws a UserError. */
export async function classical(codec, stream, width, height) {
  const file = new Blob([toFile(codec, stream, width, height)], { type: TYPES[codec] });
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    if (codec !== "jpegxl") throw damaged(`its ${codec} picture cannot be read, if this browser knows ${codec} at all`);
    throw new UserError("MissingCodec", "it holds a JPEG XL picture, which this browser cannot show: try clic-jax");
  }
  if (bitmap.width !== width || bitmap.height !== height) throw damaged(`its ${codec} picture is of another size`);
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height); // RGBA
  const samples = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) samples[3 * i + c] = data[4 * i + c];
  }
  return samples;
}
