"""Photographs for training and evaluation: whole sets in memory, crops drawn in the compiled step, whole images.

Sets are named as in `clic_jax.training.sources`. One that fits in memory is decoded once (`load_photos`) and cropped in
the compiled training step (`random_crops`); a larger one is read while training (`clic_jax.training.streaming`). Both
draw what learned compression is usually trained on: uniformly placed crops, half of them mirrored left to right, of
photographs that all count alike, whatever their size.
"""

import dataclasses
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from clic_jax.files import images
from clic_jax.training.sources import DataError, TooSmall, nothing_found, open_source

_MAX_BYTES = 2**31 - 1  # of a Photos buffer: its offsets are int32, as JAX has no int64 by default


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
    """Decoded photographs in one buffer, a pytree: pass it to jitted functions as an argument, never as a constant.

    Photograph n is `pixels[offsets[n]:][:heights[n] * widths[n] * 3].reshape(heights[n], widths[n], 3)`.
    """

    pixels: jax.Array | np.ndarray  # [bytes] uint8, RGB interleaved
    offsets: jax.Array | np.ndarray  # [N] int32, first byte of each photograph
    heights: jax.Array | np.ndarray  # [N] int32
    widths: jax.Array | np.ndarray  # [N] int32
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})  # [N]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def total(self) -> int:
        """Pixels of all photographs together (outside jit only)."""
        return int(np.sum(np.asarray(self.heights, np.int64) * np.asarray(self.widths, np.int64)))


def load_photos(spec: str, *, min_size: int, workers: int | None = None, progress: bool = True) -> Photos:
    """Decode every photograph of `spec` into one buffer of NumPy arrays, in the order of the set.

    Call `jax.device_put` on the result once, before training, or every step copies the buffer to the device.
    An image that is damaged, or has a side below `min_size` pixels (the side of the crops, or more), is skipped with a
    warning that names it. `workers` threads decode, one a core where None; `progress` shows a bar on a terminal.
    Raises: DataError if nothing is left, if the set does not exist, or if it needs more than 2**31 - 1 bytes.
    """
    source = open_source(spec)
    places, end, problems = [], 0, []  # places: (index in the source, first byte, byte after the last)
    for index in range(source.count):
        try:
            height, width = source.size(index, min_size)
        except images.ImageError as error:
            problems.append(error)
            continue
        places.append((index, end, end + height * width * 3))
        end += height * width * 3
        if end > _MAX_BYTES:
            raise DataError(
                f"{source.where} decodes to more than {_MAX_BYTES} bytes, the most that Photos can hold: "
                "train by streaming (clic_jax.training.streaming), or name a smaller set"
            )
    pixels = np.zeros(end, np.uint8)  # what turns out damaged leaves a hole that no offset points at

    def decode(place) -> tuple[int, int] | images.ImageError:
        index, first, last = place
        try:
            photo = source.read(index)
        except images.ImageError as error:
            return error
        if photo.size != last - first:
            return images.ImageError(f"{source.name(index)}: not of the size that its header says")
        pixels[first:last] = photo.reshape(-1)
        return photo.shape[:2]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        bar = tqdm(pool.map(decode, places), "decoding", len(places), disable=None if progress else True)
        results = list(zip(places, bar))
    problems += [shape for _, shape in results if isinstance(shape, images.ImageError)]
    for problem in problems:
        warnings.warn(f"{source.where}: skipped {problem}", stacklevel=2)
    kept = [(*place, *shape) for place, shape in results if not isinstance(shape, images.ImageError)]
    if not kept:
        small = sum(isinstance(problem, TooSmall) for problem in problems)
        raise nothing_found(source, min_size, f", {small} too small, {len(problems) - small} unreadable")
    index, first, _, height, width = zip(*kept)
    numbers = (np.array(column, np.int32) for column in (first, height, width))
    return Photos(pixels, *numbers, tuple(source.name(i) for i in index))


def random_crops(photos: Photos, key: jax.Array, *, batch: int, size: int) -> jax.Array:
    """Random square crops of random photographs: uint8 [batch, size, size, 3]. Pure and quick inside jit.

    Photographs are drawn uniformly, with replacement, positions uniformly, mirror images with probability 1/2; the same
    `key` gives the same crops. Every side must be at least `size` pixels, as `load_photos(min_size=size)` makes sure.
    Raises: DataError for a smaller photograph, where the sizes are known (outside jit).
    """
    if not isinstance(photos.heights, jax.core.Tracer) and min(photos.heights.min(), photos.widths.min()) < size:
        raise DataError(f"a photograph is smaller than the {size}x{size} crops: load_photos with min_size={size}")
    which_key, row_key, column_key, mirror_key = jax.random.split(key, 4)
    offsets, heights, widths = map(jnp.asarray, (photos.offsets, photos.heights, photos.widths))
    which = jax.random.randint(which_key, (batch,), 0, heights.shape[0])
    width = widths[which]
    row = jax.random.randint(row_key, (batch,), 0, heights[which] - size + 1)
    column = jax.random.randint(column_key, (batch,), 0, width - size + 1)
    # a crop is `size` runs of bytes; gathering runs is twice as quick on a CPU as gathering single bytes
    first = offsets[which] + (row * width + column) * 3
    starts = first[:, None] + jnp.arange(size, dtype=jnp.int32) * width[:, None] * 3  # [batch, size]
    runs = lax.GatherDimensionNumbers(offset_dims=(2,), collapsed_slice_dims=(), start_index_map=(0,))
    crops = lax.gather(jnp.asarray(photos.pixels), starts[..., None], runs, (size * 3,), mode="promise_in_bounds")
    crops = crops.reshape(batch, size, size, 3)
    return jnp.where(jax.random.bernoulli(mirror_key, shape=(batch, 1, 1, 1)), crops[:, :, ::-1], crops)


def whole_images(spec: str) -> Iterator[tuple[str, np.ndarray]]:
    """(name, uint8 [H, W, 3]) of every image of `spec`, in order, for evaluation: one at a time in memory.

    Raises: DataError at once if there is none; ImageError on reaching a damaged one, as an average without it is wrong.
    """
    source = open_source(spec)
    if not source.count:
        raise nothing_found(source, 1)
    return ((source.name(i), source.read(i)) for i in range(source.count))
