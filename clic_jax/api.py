"""Pictures to .clic files and back: what Python code, the command line and the Pillow plugin all call.

    data = clic_jax.compress("photo.jpg", quality=60)
    pixels = clic_jax.decompress(data)                     # uint8 [H, W, 3]; a path or an open file will do as well

`clic_jax.files.pictures` says what becomes of pictures that are not plain 8-bit RGB.
Importing this module does not import JAX: `clic-jax info` is quick.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from clic_jax import runtimes
from clic_jax.checkpoints.installed import DEFAULT_MODEL, WEIGHTS, NoModel, folder_of, installed, remedy
from clic_jax.coding import effort as efforts
from clic_jax.coding import tiles
from clic_jax.errors import UserError
from clic_jax.files import classical, container, pictures
from clic_jax.files.container import Damaged, Header, ModelMismatch, Tag
from clic_jax.files.contents import contents
from clic_jax.quality import Quality

if TYPE_CHECKING:
    from clic_jax.coding.codec import Codec

__all__ = [
    "DEFAULT_MODEL",
    "NoModel",
    "NotVerified",
    "compress",
    "decompress",
    "decompress_image",
    "folder_of",
    "installed",
    "open_model",
]


class NotVerified(UserError):
    """A file that does not decode to what was coded; always a bug."""


def compress(
    image_or_path,
    *,
    quality: float | Quality = 50,
    model: "str | os.PathLike | Codec | None" = None,
    metadata: bool = True,
    tile: int = tiles.DEFAULT,
    effort: int = 0,
    watch: Callable[[range], Iterable] = iter,
    max_pixels: int | None = container.MAX_PIXELS,
    fallback: str = "none",
    verify: bool = False,
    runtime: str | None = None,
) -> bytes:
    """The .clic file of a picture. What cannot be kept of it, or is not worth keeping, is told by an ImageWarning.

    Args:
      image_or_path: a path, an open binary file, a Pillow image, or a uint8 array [H, W], [H, W, 2] (grey and alpha),
        [H, W, 3] or [H, W, 4].
      quality: 1 (smallest) to 100 (best), in steps of 0.01.
      model: a name of `installed()`, a published folder, a run that has one, or what `open_model` returned; by default
        clic-compact-detail, or the first installed.
      metadata: whether to keep EXIF data. The ICC profile, without which colours are wrong, is always kept.
      tile: larger pictures are transformed in overlapping tiles of at most this side, a multiple of 64 pixels from 256.
      effort: 0 to 9: smaller files for more time (`coding.effort`). 1 looks back once at what was coded; from 2 on a
        search takes ever more steps. For models that were trained for squared error.
      watch: wraps the range of the search's steps, as `tqdm.tqdm` does, to show progress.
      max_pixels: larger pictures are refused, files by their header; None for no limit but 2^20 a side.
      fallback: avif, webp or jpegxl (which needs imagecodecs): the picture is coded so as well, with the same squared
        error or less, and losslessly; the smallest is kept, and its file needs no model if it is not the model's.
      verify: whether to decode the file, and compare it with what was meant.
      runtime: "onnx", "jax" or "int8", see `open_model`; with an effort of 2 or more, JAX is what is left.
    Raises: QualityError, TileError, EffortError, FallbackError, MissingCodec, ImageError, NoModel, CheckpointError,
      NoRuntime, NotVerified; all `clic_jax.errors.UserError`.
    """
    from clic_jax.coding import equal_quality, plausible

    quality, tile = Quality.of(quality), tiles.check(tile)
    picture = pictures.read(image_or_path, max_pixels)
    codec = open_model(model, runtime=runtime or ("jax" if efforts.steps(effort) else None))
    equal_quality.check(fallback, codec)
    coded, latents = codec.encode(picture.rgb, quality, tile=tile, effort=effort, watch=watch)
    height, width = picture.rgb.shape[:2]
    shown = codec.show(latents, height, width, tile=tile) if verify or fallback != equal_quality.NONE else None
    failed = plausible.is_failure(codec, picture.rgb, coded, latents, quality, tile, shown)
    header = Header(
        width=width,
        height=height,
        quality=quality,
        model_id=codec.model_id,
        latents_check=coded.check,
        grey=picture.grey,
        z_bytes=coded.z_bytes,
        pqf_bytes=coded.pqf_bytes,
    )
    extras = {tag: content for tag, content in picture.extras.items() if content and (metadata or tag != Tag.EXIF)}
    data, other = container.pack(header, coded.stream, extras), None
    if fallback != equal_quality.NONE:
        most = None if failed else len(data)
        other = _classical(fallback, picture.rgb, shown, header, extras, codec.config.model.lmbdas, most)
    if other is not None:
        data, shown = other
    elif failed:
        text = "it decodes to less than a flat colour would show, for it is no photograph: keep it as PNG"
        warnings.warn(text, pictures.ImageWarning, stacklevel=2)
    if verify:
        _verify(data, pictures.show(shown, header, extras), codec, tile)
    return data


def _classical(
    fallback: str, x, shown, header: Header, extras, lmbdas, most: int | None
) -> tuple[bytes, np.ndarray] | None:
    """A file of less than `most` bytes whose picture is classically coded, and that picture, or None.

    Its squared error is that of `shown`, the model's picture, or less; and no more than that of a flat colour.
    """
    from clic_jax import metrics
    from clic_jax.coding import equal_quality, plausible

    about = {name: getattr(header, name) for name in ("width", "height", "quality", "grey")}
    header = Header(**about, model_id=None, latents_check=None, classical=fallback)
    around = len(container.pack(header, b"", extras))
    error = min(metrics.squared_error(x, shown), plausible.flat_error(x))
    lmbda = header.quality.lmbda(lmbdas)
    found = equal_quality.smallest(fallback, x, lmbda, error, math.inf if most is None else most - around)
    if found is None:
        return None
    name, stream = found
    data = container.pack(dataclasses.replace(header, classical=name), stream, extras)
    if most is not None and len(data) >= most:
        return None
    return data, classical.decode(name, stream, *x.shape[:2], ours=True)


def _verify(data: bytes, meant: Image.Image, codec: "Codec", tile: int):
    """Raises: NotVerified unless `data` decodes to `meant`: colours within one grey level, all else the same."""
    try:
        found = decompress_image(data, model=codec, max_pixels=None, tile=tile)
    except UserError as error:
        raise NotVerified(f"the file that was made does not decode: please report this line ({error})") from error
    if (found.mode, found.size, found.info) != (meant.mode, meant.size, meant.info):
        raise NotVerified("the file that was made has other metadata than the picture: please report this line")
    worst = [abs(np.subtract(a, b, dtype=np.int16)).max() for a, b in zip(found.split(), meant.split())]
    if any(level > (band != "A") for band, level in zip(found.getbands(), worst)):
        text = f"the file that was made decodes to another picture, by {max(worst)} grey levels"
        raise NotVerified(f"{text}: please report this line")


def decompress(
    data: bytes | str | os.PathLike | BinaryIO,
    *,
    model: "str | os.PathLike | Codec | None" = None,
    max_pixels: int | None = container.MAX_PIXELS,
    tile: int = tiles.DEFAULT,
    runtime: str | None = None,
) -> np.ndarray:
    """The picture in a .clic file: uint8 [H, W, 3]; [H, W] if it was grey, and [H, W, 4] or [H, W, 2] with alpha.

    Arguments and errors are those of `decompress_image`.
    """
    return np.array(decompress_image(data, model=model, max_pixels=max_pixels, tile=tile, runtime=runtime))


def decompress_image(
    data: bytes | str | os.PathLike | BinaryIO,
    *,
    model: "str | os.PathLike | Codec | None" = None,
    max_pixels: int | None = container.MAX_PIXELS,
    tile: int = tiles.DEFAULT,
    runtime: str | None = None,
) -> Image.Image:
    """The picture in a .clic file as a Pillow image of mode RGB, L, RGBA or LA.

    Its `info` has `icc_profile`, `exif` and `dpi` (to be given to `Image.save` by name) where the file has them.

    Args:
      data: the file's bytes, its path, or an open binary file.
      model: as for `compress`; by default the installed model that the file names. A classical picture needs none.
      max_pixels: larger pictures are refused; None for no limit.
      tile: as for `compress`, and free to differ from the encoder's; pixels near the tiles' seams then differ a little.
    Raises: a `container.FormatError` of its own kind for each thing that can be wrong with the file, ModelMismatch
      among them; StreamError; TileError; NoModel; CheckpointError; MissingCodec.
    """
    tile = tiles.check(tile)
    header, stream, extras = container.unpack(contents(data), max_pixels=max_pixels)
    if header.classical:
        return pictures.show(classical.decode(header.classical, stream, header.height, header.width), header, extras)
    from clic_jax.coding import plausible

    codec = _model_for(header.model_id, model, runtime)
    filtered = header.pqf_bytes is not None
    if filtered and codec.config.model.pqf == "none":
        raise Damaged("damaged, for its model has no filter to use its coefficients: copy or download the file again")
    size = header.height, header.width
    plausible.check_length(codec, stream, *size)
    with ThreadPoolExecutor(1) as beside:
        beside.submit(codec.compile_show, *size, tile=tile)  # what fails here, `show` reports
        latents = codec.read(stream, filtered, header.latents_check, *size, header.quality)
    return pictures.show(codec.show(latents, *size, tile=tile), header, extras)


def open_model(name_or_path: "str | os.PathLike | Codec | None" = None, *, runtime: str | None = None) -> "Codec":
    """The codec of an installed or published model, kept, so that only the first call takes time.

    Args:
      name_or_path: as `model` of `compress`; a codec is returned as it is.
      runtime: "onnx" (onnxruntime and NumPy, JAX is not imported), "jax" (for GPUs, searches and research) or "int8"
        (onnx with quantised transforms, see docs/runtimes.md); by default $CLIC_JAX_RUNTIME, else the first of onnx and
        jax that the model and this installation have.
    Raises: NoModel; NoRuntime; CheckpointError for a folder without a model, or with one that cannot write files or is
      damaged.
    """
    if not (name_or_path is None or isinstance(name_or_path, (str, os.PathLike))):
        return name_or_path
    folder = model_folder(name_or_path)
    return _open(str(folder), runtimes.choose(folder, runtime))


def model_folder(name_or_path: str | os.PathLike | None = None) -> Path:
    """The published folder of an installed model, a folder, or a run that has one. Raises: NoModel."""
    folder = folder_of(name_or_path)
    inside = folder / "published"  # of a training run
    whole = (folder / "checkpoint.json").exists() or not (inside / "checkpoint.json").exists()
    return folder if whole else inside


@functools.lru_cache(4)
def _open(folder: str, runtime: str) -> "Codec":
    if runtime != "jax":
        from clic_jax.light import programs

        return programs.load(folder, int8=runtime == "int8")
    import jax

    from clic_jax.checkpoints import arrays, limits, published
    from clic_jax.checkpoints.explained import explained
    from clic_jax.coding import codec, measured

    data = published.load_coding(folder)
    config, params, model_id = published.load_published(folder)
    params = jax.device_get(params)  # what is computed with them gets them once
    with explained(f"cannot use {folder} (if it is damaged, fetch or publish it again)", UserError):
        if os.path.dirname(folder) != str(WEIGHTS):  # a stranger's, of which anything may be wrong
            limits.check_arrays(*map(arrays.flat, (measured.parameters(config.model), params)))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        return codec.Codec(config, params, model_id, data, parameters=count)


def _model_for(model_id: str, model, runtime: str | None) -> "Codec":
    """The codec with that id: the given one, or else one that is installed. Raises: ModelMismatch; as `open_model`."""
    if model is None:
        model = next((name for name, found in installed().items() if found == model_id), None)
        if model is None:
            raise ModelMismatch(model_id, None, remedy(model_id))
    codec = open_model(model, runtime=runtime)
    if codec.model_id != model_id:
        raise ModelMismatch(model_id, codec.model_id, "give that one (`clic-jax models` lists those installed)")
    return codec
