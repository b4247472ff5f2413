"""The .clic format in Pillow; importing this module registers it.

import clic_jax.pillow
Image.open("x.clic").save("x.png")                     # the pixels are decoded at their first use
image.save("x.clic", quality=60)                       # what is kept, and how: clic_jax.files.pictures
"""

import os

from PIL import Image, ImageFile

from clic_jax import api
from clic_jax.files import container, pictures

FORMAT, SUFFIX, MIME = "CLIC", ".clic", "image/x-clic"
_model: str | os.PathLike | None = None  # chosen by `register`


def register(model: str | os.PathLike | None = None):
    """Makes Pillow read and write .clic files.

    model: a name or published folder, which replaces the default of `api.compress` and `api.decompress`.
    """
    global _model
    _model = model
    Image.register_open(FORMAT, ClicImageFile, lambda prefix: prefix[:3] == container.MAGIC)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


class ClicImageFile(ImageFile.ImageFile):
    """A .clic file whose header is read; `load` decodes it. Both raise the errors of `api.decompress_image`."""

    format = FORMAT
    format_description = "CLIC learned image codec"

    def _open(self):
        self._data = self.fp.read()
        header, _, extras = container.unpack(self._data, max_pixels=None)  # Pillow has a limit of its own
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * (container.Tag.ALPHA in extras)
        self.info["quality"] = float(header.quality)
        pictures.attach(self, extras)

    def load(self):
        if self._data is not None:
            image = api.decompress_image(self._data, model=_model, max_pixels=None)
            self.im, self._data = image.im, None
            if self._exclusive_fp and self._close_exclusive_fp_after_loading:
                self.fp.close()
            self.fp = None
        return super().load()


def _save(image, file, filename):
    """Writes `image` with the options quality, model, metadata, icc_profile and exif of `Image.save`."""
    options = dict(image.encoderinfo)
    for name in ("icc_profile", "exif"):
        if name in options:
            content = options.pop(name)
            image = image.copy()
            image.info[name] = content.tobytes() if isinstance(content, Image.Exif) else content
    known = {name: options[name] for name in ("quality", "metadata") if name in options}
    file.write(api.compress(image, model=options.get("model", _model), **known))


register()
