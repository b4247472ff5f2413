"""What a process that computes with JAX needs: memory given back, compiled programs on disk, settings of our code."""

import contextlib
import functools
import gc
import os
import zlib
from pathlib import Path

import jax

from clic_jax import memory
from clic_jax.errors import UserError

_ZSTD = b"\x28\xb5\x2f\xfd"  # how an entry of the cache starts where Python has zstd; else it is zlib's


def release_memory(programs: bool = False) -> None:
    """Hands memory that nothing uses back to the system, such as the compiler's: 1.7 of 3.4 GiB after `paper`'s step.

    Args:
      programs: whether to forget everything that jax.jit has traced and compiled as well. What was compiled ahead of
        time stays; anything else compiles again when it is next called.
    """
    if programs:
        jax.clear_caches()
    gc.collect()
    if trim := memory.of_glibc("malloc_trim"):
        trim(0)


def use_cache() -> Path | None:
    """Turns JAX's persistent compilation cache on, unless the user has chosen one, and returns its folder.

    The folder is $JAX_COMPILATION_CACHE_DIR, else clic_jax/xla in the user's cache folder ($XDG_CACHE_HOME or
    ~/.cache); without a home there is no cache, and None.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.jax_compilation_cache_dir
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen or Path(caches) / "clic_jax" / "xla")
    if not chosen and caches.startswith("~"):  # neither $HOME nor an entry in the list of users
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # a decode has fifty small programs
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    with contextlib.suppress(OSError):  # a cache that cannot be written to is of some use
        _remove_damaged(folder)
    return folder


def _remove_damaged(folder: Path):
    """Removes what a process that was killed, or a full disk, has left of programs: JAX would never write them again.

    Only what is newer than the last look is read, whose time is that of a file beside.
    """
    stamp = folder / "looked_at"
    last = stamp.stat().st_mtime_ns if stamp.exists() else 0
    folder.mkdir(parents=True, exist_ok=True)
    stamp.touch()
    for entry in os.scandir(folder):
        if not entry.name.endswith("-cache") or entry.stat().st_mtime_ns < last:
            continue
        content = Path(entry.path).read_bytes()
        with contextlib.suppress(zlib.error):
            if content[:4] == _ZSTD or content and zlib.decompress(content):  # zstd itself may not be installed
                continue
        os.unlink(entry.path)


def doubles():
    """A context in which JAX has float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax import experimental  # where jax 0.7 has it, and 0.10 no more

    return experimental.enable_x64()


class NoDevice(UserError):
    """JAX has none of the devices that its environment asks for."""


class ForkedProcess(UserError):
    """The process was forked from one that had used JAX, whose threads it lacks: anything might wait forever."""


@contextlib.contextmanager
def computing():
    """Around what uses JAX: settings under which our code is right, whatever those of the process are.

    Raises: ForkedProcess; NoDevice.
    """
    if _first_process() != os.getpid():
        raise ForkedProcess(
            "this process was forked from one that had used JAX, and would wait forever: start processes anew, "
            "as multiprocessing.get_context('spawn') does"
        )
    check_device()
    with usual_settings():
        yield


@contextlib.contextmanager
def usual_settings():
    """JAX's default rules of promotion and transfer inside, in this thread; strict ones would refuse our code."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.transfer_guard("allow"):
        yield


def check_device():
    """Raises: NoDevice where JAX finds no device to compute on."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, or AssertionError for cuda
        asked = f" of JAX_PLATFORMS={name}" if (name := os.environ.get("JAX_PLATFORMS")) else ""
        reason = str(error).split(" (set ")[0] or "there is none"
        raise NoDevice(f"JAX cannot use a device{asked}: {reason}; unset JAX_PLATFORMS for one that is here") from error


@functools.cache
def _first_process() -> int:
    """The process that computed first; a fork inherits what is cached."""
    return os.getpid()
