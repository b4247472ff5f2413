"""Which runtime computes: "onnx" (onnxruntime and NumPy, quick to start) or "jax" (searches, GPUs, research).

Without a word from the user it is the first of these that the model and this installation allow. "int8" is "onnx" with
quantised transforms, for who asks for it. Importing this module imports none of the packages.
"""

import importlib.util
import os
from pathlib import Path

from clic_jax.errors import UserError

RUNTIMES = ("onnx", "jax", "int8")
VARIABLE = "CLIC_JAX_RUNTIME"  # of the environment, where no argument says it
FOLDER = "light"  # in a published model: what `clic_jax.light.export` makes of it
EXPORTED = Path(FOLDER, "about.json")
QUANTISED = Path(FOLDER, "g_s.int8.onnx")  # and g_a, of `experiments.int8`


class NoRuntime(UserError):
    """A runtime that does not exist, is not installed, or that the model is not exported for."""


class ExportError(UserError):
    """A network that cannot be exported."""


def choose(folder: Path, runtime: str | None = None) -> str:
    """The runtime for the published model in `folder`: the given one, that of $CLIC_JAX_RUNTIME, or the first possible.

    Raises: NoRuntime.
    """
    asked = runtime or os.environ.get(VARIABLE) or None
    if asked not in (None, *RUNTIMES):
        where = "runtime" if runtime else VARIABLE
        raise NoRuntime(f"{where} {asked!r} is none: choose {', '.join(RUNTIMES)}")
    exported, have = (folder / EXPORTED).exists(), {"jax": _have("jax"), "onnx": _have("onnxruntime")}
    if asked == "jax" and not have["jax"]:
        raise NoRuntime("JAX, which this needs, is not installed: pip install jax flax optax orbax-checkpoint")
    if asked in ("onnx", "int8") and not have["onnx"]:
        raise NoRuntime("onnxruntime is not installed: pip install onnxruntime, or choose the runtime jax")
    if asked == "onnx" and not exported:
        remedy = "`clic-jax export` does that, or choose the runtime jax"
        raise NoRuntime(f"{folder} is not exported for onnxruntime: {remedy}")
    if asked == "int8" and not (exported and (folder / QUANTISED).exists()):
        raise NoRuntime(f"{folder} has no transforms in int8: `python -m experiments.int8` makes them, or choose onnx")
    if asked:
        return asked
    if exported and have["onnx"]:
        return "onnx"
    if have["jax"]:
        return "jax"
    reason = "onnxruntime is not installed" if exported else f"{folder} is not exported (`clic-jax export`, with JAX)"
    raise NoRuntime(f"{reason}, and JAX is not installed")


def wants_jax(folders, runtime: str | None = None) -> bool:
    """Whether one of these models would compute with JAX; arguments as for `choose`, whose errors are left to it."""
    for folder in folders:
        try:
            if choose(folder, runtime) == "jax":
                return True
        except NoRuntime:
            continue
    return False


def _have(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
