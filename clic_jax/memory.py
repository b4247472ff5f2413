"""How the C library gives memory to XLA, onnxruntime and NumPy."""

import ctypes
import sys

# <malloc.h>: parameter numbers of mallopt
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory(everything: bool = False) -> bool:
    """Makes large allocations on the CPU reuse memory; call it once, early, in a long-running program.

    XLA, as NumPy, allocates its temporary buffers anew at each call. glibc serves large ones with fresh pages from the
    kernel, which zeroes each on first touch: 14,000 page faults in one pass of g_a, and a third of the time; 760,000 in
    a gradient of `paper`.

    Args:
      everything: for training, whose steps are all alike. Otherwise more than 2 GiB unused at the end of the heap are
        handed back, for a program that now and then codes a huge picture.
    Returns: False where the C library has no mallopt (macOS, Windows, musl), where nothing is changed.
    """
    mallopt = of_glibc("mallopt")
    trim = -1 if everything else 2**31 - 1  # never, or the largest threshold that mallopt takes
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, trim), (M_TOP_PAD, 2**26))
    return mallopt is not None and all(mallopt(name, value) for name, value in settings)


def of_glibc(name: str):
    """That function of the GNU C library, or None where there is another one."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
