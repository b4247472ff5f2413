"""What can be wrong with a .clic file: an error of its own each, one line with the remedy."""

from clic_jax.errors import UserError


class FormatError(UserError):
    """A file that cannot be decoded; the message is one line with the remedy."""


class NotClic(FormatError):
    """The file is of another kind."""


class UnknownVersion(FormatError):
    """The file needs a newer clic_jax."""


class Truncated(FormatError):
    """The file ends too early."""


class TrailingBytes(FormatError):
    """A whole .clic file, and something behind it."""


class Damaged(FormatError):
    """Bytes of the file have changed, or it was never written as this module describes."""


class TooLarge(FormatError):
    """The picture has more pixels than the caller allows."""


class ModelMismatch(FormatError):
    """ModelMismatch(expected, found, remedy): the codec has another model than the file's; `found` is None for none."""

    def __str__(self):
        expected, found, remedy = self.args
        return f"it needs model {expected}{f', not {found}' if found else ', which is not installed'}: {remedy}"


class Desync(FormatError):
    """Desync(expected, found, setting): the checksums of the encoder's latents and of the decoder's. Always a bug.

    setting: the versions and the device that the report should name, such as "jax 0.10.0, cpu".
    """

    def __str__(self):
        text = "decoder out of step, so there is no picture: please report this line and the file ({:06x}, {:06x}, {})"
        return text.format(*self.args)
