"""The .clic format in Pillow; importing this module registers it.

import clic_jax.pillow
Image.open("x.clic").save("x.png")                     # the pixels are decoded at their first use
image.save("x.clic", quality=60)                       # what is kept, and how: clic_jax.files.pictures

Pillow empties a file before it asks the format to write it: an old file does not survive an `Image.save` that fails.
"""

import functools
import os

from PIL import Image, ImageFile

from clic_jax import api
from clic_jax.errors import UserError
from clic_jax.files import container, pictures
from clic_jax.files.contents import contents

FORMAT, SUFFIX, MIME = "CLIC", ".clic", "image/x-clic"
IN_INFO = ("icc_profile", "exif", "dpi")  # options of `Image.save` in the place of the image's own
OPTIONS = ("quality", "model", "metadata", "tile", "effort", "fallback", "verify", *IN_INFO)  # others: `api.compress`


class OptionError(UserError):
    """An option of `Image.save` that the format does not have."""


def register(model: str | os.PathLike | None = None):
    """Makes Pillow read and write .clic files.

    model: a name or published folder, which replaces the default of `api.compress` and `api.decompress` for the images
        that are opened and saved from now on.
    """
    opener = functools.partial(ClicImageFile, model=model)
    Image.register_open(FORMAT, opener, lambda prefix: prefix[:3] == container.MAGIC)
    Image.register_save(FORMAT, functools.partial(_save, model))
    Image.register_save_all(FORMAT, functools.partial(_save_all, model))
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


class ClicImageFile(ImageFile.ImageFile):
    """A .clic file whose header is read; `load` decodes it with `model`. Both raise as `api.decompress_image` does."""

    format = FORMAT
    format_description = "CLIC learned image codec"
    _data = None  # the file, until it is decoded; an image that comes back from a pickle is decoded already

    def __init__(self, fp, filename=None, *, model: str | os.PathLike | None = None):
        self._model = model
        super().__init__(fp, filename)

    def _open(self):
        self._data = contents(self.fp)
        header, _, extras = container.unpack(self._data, max_pixels=None)  # Pillow has a limit of its own
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * (container.Tag.ALPHA in extras)
        self.info["quality"] = float(header.quality)
        pictures.attach(self, extras)

    def load(self):
        if self._data is not None:
            image = api.decompress_image(self._data, model=self._model, max_pixels=None)
            self.im, self._data = image.im, None
            if self._exclusive_fp and self._close_exclusive_fp_after_loading:
                self.fp.close()
            self.fp = None
        return super().load()


def _save(model, image, file, filename):
    """Writes `image` with the options of `Image.save` that are in OPTIONS, or else `model`. Raises: OptionError."""
    options = dict(image.encoderinfo)
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise OptionError(f"no option {unknown[0]!r} for .clic files: there are {', '.join(OPTIONS)}")
    if about := {name: options.pop(name) for name in IN_INFO if name in options}:
        image = image.copy()
        exif = about.get("exif")
        image.info |= about | ({"exif": exif.tobytes()} if isinstance(exif, Image.Exif) else {})
    file.write(api.compress(image, **{"model": model, "max_pixels": None} | options))


def _save_all(model, image, file, filename):
    """As `_save`, where `Image.save` was asked for all frames. Raises: OptionError if there are several."""
    if image.encoderinfo.pop("append_images", None) or getattr(image, "n_frames", 1) > 1:
        raise OptionError("a .clic file holds one picture: save the frames one by one, without save_all")
    _save(model, image, file, filename)


register()
