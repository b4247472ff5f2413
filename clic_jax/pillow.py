"""The .clic format in Pillow; importing this module registers it.

import clic_jax.pillow
Image.open("x.clic").save("x.png")                     # the pixels are decoded at their first use
image.save("x.clic", quality=60)                       # what is kept, and how: clic_jax.files.pictures
"""

import functools
import os

from PIL import Image, ImageFile

from clic_jax import api
from clic_jax.files import container, pictures

FORMAT, SUFFIX, MIME = "CLIC", ".clic", "image/x-clic"


def register(model: str | os.PathLike | None = None):
    """Makes Pillow read and write .clic files.

    model: a name or published folder, which replaces the default of `api.compress` and `api.decompress` for the images
        that are opened and saved from now on.
    """
    opener = functools.partial(ClicImageFile, model=model)
    Image.register_open(FORMAT, opener, lambda prefix: prefix[:3] == container.MAGIC)
    Image.register_save(FORMAT, functools.partial(_save, model))
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
        self._data = self.fp.read()
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
    """Writes `image` with the options quality, model (or else `model`), metadata, icc_profile, exif of `Image.save`."""
    options = dict(image.encoderinfo)
    for name in ("icc_profile", "exif"):
        if name in options:
            content = options.pop(name)
            image = image.copy()
            image.info[name] = content.tobytes() if isinstance(content, Image.Exif) else content
    known = {name: options[name] for name in ("quality", "metadata") if name in options}
    file.write(api.compress(image, model=options.get("model", model), **known))


register()
