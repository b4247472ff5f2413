"""Photographs for training and evaluation, named by a short SPEC on the command line.

    folder:PATH          every image in PATH and the folders below it
    tfds:NAME[@SPLIT]    a set of TensorFlow Datasets (split `train` where none is given), read without TensorFlow
    sample               the photographs inside the scikit-image and scikit-learn packages: nothing to download
    sample:valid         the one of them that `sample` leaves out, for evaluation

A set that fits in memory is decoded once (`load_photos`) and cropped in the compiled training step (`random_crops`); a
larger one is read while training (`clic_jax.streaming`). Both draw what learned compression is usually trained on:
uniformly placed crops, half of them mirrored left to right, of photographs that all count alike, whatever their size.
"""

import dataclasses
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from clic_jax import images
from clic_jax.errors import UserError

_MAX_BYTES = 2**31 - 1  # of a Photos buffer: its offsets are int32, as JAX has no int64 by default
_SAMPLE = {  # photographs in RGB only, as package/path; one eye of the stereo pair
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/coffee.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
    "valid": ("skimage/data/chelsea.png",),
}


class DataError(UserError):
    """Photographs that cannot be found, read or held; one line: what was looked for, where, the way out."""


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
    source = _source(spec)
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
                "train by streaming (clic_jax.streaming), or name a smaller set"
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
        small = sum(isinstance(problem, _TooSmall) for problem in problems)
        raise _nothing_found(source, min_size, f", {small} too small, {len(problems) - small} unreadable")
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
    source = _source(spec)
    if not source.count:
        raise _nothing_found(source, 1)
    return ((source.name(i), source.read(i)) for i in range(source.count))


def sample_photographs(split: str = "train") -> list[Path]:
    """Paths of the sample photographs, "train" or the held-out "valid". Raises: DataError if they are not installed."""
    if split not in _SAMPLE:
        raise DataError(f"the sample photographs have no split {split!r}: write sample or sample:valid")
    paths = []
    for name in _SAMPLE[split]:
        package, _, inside = name.partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not (path := Path(found.origin).parent / inside).is_file():
            raise DataError(
                f"the sample photograph {name} is not installed: pip install scikit-image scikit-learn, "
                "or name photographs of yours with folder:PATH"
            )
        paths.append(path)
    return paths


class _TooSmall(images.ImageError):
    """An image with a side below what is wanted."""


class _Source(NamedTuple):
    """An ordered set of images, not yet read."""

    where: str  # how messages call it
    count: int
    name: Callable[[int], str]
    open: Callable[[int], Path | io.BytesIO]  # something that Pillow opens

    def size(self, index: int, least: int = 1) -> tuple[int, int]:
        """(height, width) from the header. Raises: ImageError for a damaged image or a side below `least`."""
        height, width = images.image_size(self.open(index), self.name(index))
        if min(height, width) < least:
            raise _TooSmall(f"{self.name(index)}: {height}x{width} pixels, smaller than {least}x{least}")
        return height, width

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]. Raises: as `images.read_rgb`."""
        return images.read_rgb(self.open(index), self.name(index))


def _source(spec: str) -> _Source:
    """The set that `spec` names. Raises: DataError if it does not exist or cannot be prepared."""
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        folder = Path(rest).expanduser()
        try:
            paths = images.list_images(folder)
        except images.ImageError as error:
            raise DataError(f"{error}; name an existing one with folder:PATH, or try the spec sample") from None
        names = [path.relative_to(folder).as_posix() for path in paths]
        return _Source(f"folder {folder}", len(paths), names.__getitem__, paths.__getitem__)
    if kind == "tfds" and rest:
        return _tfds_source(rest)
    if kind == "sample":
        paths = sample_photographs(rest or "train")
        return _Source(spec, len(paths), lambda i: paths[i].name, paths.__getitem__)
    hint = f" (did you mean folder:{spec}?)" if Path(spec).is_dir() else ""
    raise DataError(f"no data called {spec!r}{hint}: write folder:PATH, tfds:NAME@SPLIT, sample or sample:valid")


def _tfds_source(text: str) -> _Source:
    """The images of `NAME[@SPLIT]`, prepared first where necessary, still encoded: our reader decodes them all."""
    name, split = (text.split("@") + ["train"])[:2]
    try:
        import tensorflow_datasets as tfds

        data_dir = os.environ.get("TFDS_DATA_DIR")  # TFDS itself reads it once, when it is imported
        builder = tfds.builder(name, data_dir=data_dir)
        features = builder.info.features
        encoded = [key for key in features if isinstance(features[key], tfds.features.Image)]
        colour = sorted(key for key in encoded if features[key].shape[-1] != 1)
        if not colour:
            raise DataError(f"no colour image among its features ({', '.join(features)})")
        if not builder.is_prepared():
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
        records = builder.as_data_source(split=split, decoders={key: tfds.decode.SkipDecoding() for key in encoded})
    except Exception as error:  # anything may go wrong in a data set's own script
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"cannot read tfds:{name}@{split} without TensorFlow: {reason}; prepare it elsewhere with "
            "file_format='array_record', or extract its images and use folder:PATH"
        ) from error
    key = "image" if "image" in colour else colour[0]  # div2k: "hr" before "lr"
    return _Source(
        f"tfds:{name}@{split}",
        len(records),
        lambda i: f"tfds:{name}@{split}[{i}]",
        lambda i: io.BytesIO(records[i][key]),
    )


def _nothing_found(source: _Source, size: int, details: str = "") -> DataError:
    return DataError(
        f"no image of at least {size}x{size} pixels in {source.where} "
        f"({source.count} files seen{details}): name other photographs, or use smaller crops"
    )
