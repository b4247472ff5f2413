"""Which of a folder's pictures a model learns from, which choose among its checkpoints, and which judge it.

Every other picture, in the order of their names, judges and is for nothing else; of the other half every fifth chooses.
Pictures whose pixels are equal count as one, whatever they are called, so that no half has what the other has.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from clic_jax.errors import UserError
from clic_jax.files import images

LEAST = 4  # different pictures: one to learn from, one to choose by, two to judge by
EVERY = 5  # of the half that is learnt from, one of so many chooses
CHOOSING, CHOOSING_SIDE = 8, 512  # at most so many choose, by their middles: each evaluation takes time from training
SMALLEST_CROP = 64  # pixels, the least side of a picture that can be learnt from
NAMED = 5  # damaged pictures in an error


class FolderError(UserError):
    """A folder of pictures that cannot be used; one line that says which files are in the way, or what is missing."""


class Picture(NamedTuple):
    """What is known of a picture."""

    height: int
    width: int
    checksum: str  # of its pixels


class Halves(NamedTuple):
    """Names of pictures, relative to their folder, in order."""

    train: list[str]
    valid: list[str]
    test: list[str]


def look(folder: Path) -> dict[str, Picture]:
    """Every picture by its name, each decoded once, so that nothing fails after an hour of measuring.

    Raises: ImageError for no folder; FolderError for one without pictures, or with some that cannot be read, all of
      them named.
    """
    paths = images.list_images(folder)
    if not paths:
        raise FolderError(f"{folder} has no images that Pillow can read: name a folder of photographs")
    found, damaged = {}, []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            x = images.read_rgb(path, name)
        except images.ImageError as error:
            damaged.append(str(error))
            continue
        found[name] = Picture(*x.shape[:2], hashlib.sha256(repr(x.shape).encode() + x.tobytes()).hexdigest())
    if damaged:
        raise FolderError(
            f"{len(damaged)} of {len(paths)} images in {folder} cannot be read ({'; '.join(damaged[:NAMED])}"
            f"{'; ...' * (len(damaged) > NAMED)}): move them away, or repair them"
        )
    return found


def divide(folder: Path, pictures: dict[str, Picture]) -> Halves:
    """The halves, a function of names and pixels alone. Raises: FolderError for too few, or none large enough."""
    alike: dict[str, list[str]] = {}
    for name in sorted(pictures):
        alike.setdefault(pictures[name].checksum, []).append(name)
    groups = list(alike.values())
    if len(groups) < LEAST:
        raise FolderError(
            f"{folder} has {len(groups)} different pictures, and adapting takes {LEAST} at least, to learn from some "
            "and be judged by others; some dozens are worth the while"
        )
    learning, judging = groups[::2], groups[1::2]
    chosen = range(min(2, len(learning) - 1), len(learning), EVERY)
    train = [name for i, group in enumerate(learning) if i not in chosen for name in group]
    if not any(min(pictures[name][:2]) >= SMALLEST_CROP for name in train):
        raise FolderError(
            f"no picture of {folder} that is to be learnt from has {SMALLEST_CROP}x{SMALLEST_CROP} pixels: "
            "name a folder of larger ones"
        )
    # of pictures that are equal one is enough to choose or to judge by
    return Halves(train, [learning[i][0] for i in chosen][:CHOOSING], [group[0] for group in judging])


def lay_out(folder: Path, halves: Halves, out: Path) -> dict[str, Path]:
    """Folders of `train`, `valid` and `test` in `out`, made anew: links to the pictures, and what is chosen by as PNGs.

    Where the system has no links the pictures are copied. The pictures themselves are only read.
    """
    if out.exists():
        shutil.rmtree(out)
    folders = {name: out / name for name in Halves._fields}
    for part in ("train", "test"):
        for name in getattr(halves, part):
            target = folders[part] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.symlink((folder / name).resolve(), target)
            except OSError:  # Windows, for most users
                shutil.copyfile(folder / name, target)
    folders["valid"].mkdir()
    for i, x in enumerate(middles([images.read_rgb(folder / name, name) for name in halves.valid])):
        Image.fromarray(x).save(folders["valid"] / f"{i}.png")
    return folders


def middles(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """The middle of each picture uint8 [H, W, 3], all of one size, as each size compiles once."""
    sides = [min(CHOOSING_SIDE, min(x.shape[axis] for x in pictures)) for axis in (0, 1)]
    height, width = (side // 64 * 64 if side > 64 else side for side in sides)
    corners = [((x.shape[0] - height) // 2, (x.shape[1] - width) // 2) for x in pictures]
    return [x[top : top + height, left : left + width] for x, (top, left) in zip(pictures, corners)]
