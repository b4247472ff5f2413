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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_kept_until_released():
    done = subprocess.run(
        [sys.executable, "-c", KEEP_AND_RELEASE], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    full, kept, released = map(float, done.stdout.split())
    assert full > 250 and kept > 250 and released < 30
