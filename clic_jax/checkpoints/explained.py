"""Errors about checkpoints, in one line."""

import contextlib
import os
import re

from clic_jax.errors import UserError


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read, or used for this config; the message is one line with the remedy."""


@contextlib.contextmanager
def explained(what: str, but: type[UserError] = CheckpointError):
    """Turns any error inside, `but` such, into a CheckpointError of one line that starts with `what`."""
    try:
        yield
    except but:
        raise
    except Exception as error:  # orbax and tensorstore have no base class: ValueError, KeyError, OSError and others
        code = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(code[1])) if code else re.split(r"\n| \[tensorstore_spec|\. See full", str(error))[0]
        raise CheckpointError(f"{what}: {reason[:300] or type(error).__name__}") from error
