"""What is done with one file, by one process as by a cluster: read, coded or decoded, written, and told as a row."""

import io
import os
import time
import warnings
from typing import Any

import numpy as np
from PIL import Image

from clic_jax import api, cli, metrics
from clic_jax.bulk import places
from clic_jax.bulk.report import Row
from clic_jax.bulk.sources import Task
from clic_jax.errors import UserError
from clic_jax.files import container, outputs, pictures
from clic_jax.files.contents import contents, read
from clic_jax.files.images import ImageError, opened
from clic_jax.quality import Quality


def compress(options: dict[str, Any], psnr: bool, resume: bool, task: Task) -> Row:
    """Codes one picture. With `resume`, not if the target is there, whole, and of this picture at this quality.

    Args: options: keywords of `api.compress`. psnr: whether to decode the file and compare the two.
    Raises: as `api.compress`, PlaceError, OSError.
    """
    start = time.perf_counter()
    source, size, modified = _source(task.source)
    if task.source == "-":
        source = io.BytesIO(read(source))  # Pillow wants to seek
        source.name, size = task.source, len(source.getbuffer())
    if resume and (row := _coded_before(options, task, size, modified)):
        return row
    data = api.compress(source, **options)
    quality = _psnr(source, data, options) if psnr else None
    _write(task, data)
    about = container.peek(data)
    row = Row(task.source, task.target, size, len(data), about["width"] * about["height"], about["quality"])
    row.psnr, row.modified, row.seconds = quality, modified, round(time.perf_counter() - start, 4)
    return row


def decompress(options: dict[str, Any], kind: str, resume: bool, task: Task) -> Row:
    """Decodes one .clic file to a file of the format `kind`. With `resume`, not if a picture of its size is there.

    Args: options: keywords of `api.decompress_image`. Raises: as it, ImageError, PlaceError, OSError.
    """
    start = time.perf_counter()
    source, size, modified = _source(task.source)
    data = contents(source)
    size = len(data) if size is None else size
    about = container.peek(data)
    if resume and (row := _decoded_before(about, task, size, modified)):
        return row
    made = outputs.encoded(api.decompress_image(data, **options), kind)
    _write(task, made)
    row = Row(task.source, task.target, size, len(made), about["width"] * about["height"], about["quality"])
    row.modified, row.seconds = modified, round(time.perf_counter() - start, 4)
    return row


def _source(name: str):
    """(a path or an open file, its bytes and its time as `places.state`, None of what is no file)."""
    if name == "-":
        return cli.standard_input(), None, None
    if not places.is_address(name):
        return name, *(places.state(name) if os.path.isfile(name) else (None, None))
    file = io.BytesIO(places.read(name))
    file.name = name  # which errors tell
    return file, *places.state(name)


def _write(task: Task, data: bytes):
    if task.target == "-":
        cli.standard_output().write(data)
    else:
        places.write(task.target, data, task.parents)


def _psnr(source, data: bytes, options: dict[str, Any]) -> float | None:
    """Of the colours, in dB; None if they are the same."""
    if hasattr(source, "seek"):
        source.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pictures.ImageWarning)  # were told when it was coded
        before = pictures.read(source, options["max_pixels"]).rgb
    same = {name: options[name] for name in ("model", "tile", "runtime")}
    shown = api.decompress_image(data, max_pixels=None, **same)
    value = float(metrics.psnr(before, np.asarray(shown.convert("RGB"))))
    return round(value, 4) if np.isfinite(value) else None


def _coded_before(options, task: Task, size: int, modified: float | None) -> Row | None:
    """The row of a picture that need not be coded. Raises: UserError, as `_is_ours`."""
    if not places.exists(task.target):
        return None
    try:
        about = container.peek(places.read(task.target))
        model_id = api.open_model(options["model"], runtime=options["runtime"]).model_id
        done = about["quality"] == float(Quality.of(options["quality"])) and about["model_id"] in (None, model_id)
    except container.FormatError:
        done = False
    if not _is_ours(task, done, size, modified):
        return None
    row = Row(task.source, task.target, size, about["bytes"]["total"], about["width"] * about["height"])
    row.quality, row.modified, row.skipped = about["quality"], modified, True
    return row


def _decoded_before(about, task: Task, size: int, modified: float | None) -> Row | None:
    """The row of a file that need not be decoded. Raises: UserError, as `_is_ours`."""
    if not places.exists(task.target):
        return None
    content = places.read(task.target)
    try:
        with opened(io.BytesIO(content), task.target) as image:
            image.load()  # all of it, or a cut file would pass
            done = image.size == (about["width"], about["height"])
    except (ImageError, Image.DecompressionBombError):
        done = False
    if not _is_ours(task, done, size, modified):
        return None
    row = Row(task.source, task.target, size, len(content), about["width"] * about["height"], about["quality"])
    row.modified, row.skipped = modified, True
    return row


def _is_ours(task: Task, done: bool, size: int, modified: float | None) -> bool:
    """Whether the target, which is there, is `done` and made from the source as it is now; False to make it anew.

    That is so if the report has the source's size and time as they are, or else if the target is not older.
    Raises: UserError where it must be made anew, but may be an original of the user's.
    """
    if task.recorded is not None:
        return done and task.recorded == (size, modified)
    changed = places.state(task.target)[1]
    if done and None not in (changed, modified) and changed >= modified:
        return True
    if task.named or task.replace:
        return False
    raise UserError(
        f"{task.target} exists, and is not known to be made from this file with these options: to replace it, give "
        "--force"
    )
