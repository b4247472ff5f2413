"""Memory kept and handed back, as the system sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

KEEP_AND_RELEASE = """
from clic_jax import memory, runtime
import numpy as np

def resident_mib():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmRSS")).split()[1]) / 1024

assert memory.keep_memory()
before = resident_mib()
arrays = [np.ones(2**16, np.uint8) for _ in range(4096)]
full = resident_mib()
del arrays
kept = resident_mib()
runtime.release_memory()
print(full - before, kept - before, resident_mib() - before)
"""

FREE_MORE_THAN_TWO_GIB = """
import ctypes, sys
from clic_jax import memory
import numpy as np

end_of_heap = memory.of_glibc("sbrk")
end_of_heap.restype = ctypes.c_void_p
assert memory.keep_memory(everything=sys.argv[1] == "everything")
before = end_of_heap(0)
array = np.empty(2**31 + 2**28, np.uint8)  # never touched: an address range, and no memory
full = end_of_heap(0)
del array
print(full - before, end_of_heap(0) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_kept_until_released():
    done = subprocess.run(
        [sys.executable, "-c", KEEP_AND_RELEASE], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    full, kept, released = map(float, done.stdout.split())
    assert full > 250 and kept > 250 and released < 30


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a Linux C library")
@pytest.mark.parametrize("what", ["usual", "everything"])
def test_more_than_two_gib(what):
    """What a step of `paper` has for its temporaries is kept for the next one; what one huge picture took is not."""
    command = [sys.executable, "-c", FREE_MORE_THAN_TWO_GIB, what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    full, kept = map(int, done.stdout.split())
    assert full >= 2**31 and (kept == full if what == "everything" else kept < 2**28)
