"""Where photographs come from: an ordered set of images, named by a short SPEC on the command line.

folder:PATH          every image in PATH and the folders below it
tfds:NAME[@SPLIT]    a set of TensorFlow Datasets (split `train` where none is given), read without TensorFlow
sample               the photographs inside the scikit-image and scikit-learn packages: nothing to download
sample:valid         the one of them that `sample` leaves out, for evaluation
"""

import importlib.util
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clic_jax import cli
from clic_jax.errors import UserError
from clic_jax.files import images

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


class TooSmall(images.ImageError):
    """An image with a side below what is wanted."""


class Source(NamedTuple):
    """An ordered set of images, not yet read."""

    where: str  # how messages call it
    count: int
    name: Callable[[int], str]
    open: Callable[[int], Path | io.BytesIO]  # something that Pillow opens

    def size(self, index: int, least: int = 1) -> tuple[int, int]:
        """(height, width) from the header. Raises: ImageError for a damaged image or a side below `least`."""
        height, width = images.image_size(self.open(index), self.name(index))
        if min(height, width) < least:
            raise TooSmall(f"{self.name(index)}: {height}x{width} pixels, smaller than {least}x{least}")
        return height, width

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]. Raises: as `images.read_rgb`."""
        return images.read_rgb(self.open(index), self.name(index))


def open_source(spec: str) -> Source:
    """The set that `spec` names. Raises: DataError if it does not exist or cannot be prepared."""
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        folder = Path(cli.expanded(rest))
        try:
            paths = images.list_images(folder)
        except images.ImageError as error:
            raise DataError(f"{error}; name an existing one with folder:PATH, or try the spec sample") from None
        names = [path.relative_to(folder).as_posix() for path in paths]
        return Source(f"folder {folder}", len(paths), names.__getitem__, paths.__getitem__)
    if kind == "tfds" and rest:
        return _tfds_source(rest)
    if kind == "sample":
        paths = sample_photographs(rest or "train")
        return Source(spec, len(paths), lambda i: paths[i].name, paths.__getitem__)
    hint = f" (did you mean folder:{spec}?)" if Path(spec).is_dir() else ""
    raise DataError(f"no data called {spec!r}{hint}: write folder:PATH, tfds:NAME@SPLIT, sample or sample:valid")


def _tfds_source(text: str) -> Source:
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
    return Source(
        f"tfds:{name}@{split}",
        len(records),
        lambda i: f"tfds:{name}@{split}[{i}]",
        lambda i: io.BytesIO(records[i][key]),
    )


def nothing_found(source: Source, size: int, details: str = "") -> DataError:
    return DataError(
        f"no image of at least {size}x{size} pixels in {source.where} "
        f"({source.count} files seen{details}): name other photographs, or use smaller crops"
    )
