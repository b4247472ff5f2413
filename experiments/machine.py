"""What a result file says of the machine that measured it."""

import os
import platform
from pathlib import Path

EXTENSIONS = ("amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")  # the best one says how quick products are


def describe() -> str:
    """Cores, processor, the best of its vector extensions, and memory: "2-core AMD EPYC, avx512_vnni, 24 GiB"."""
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    flags = _cpuinfo("flags").split()
    best = next((f"{name}, " for name in EXTENSIONS if name in flags), "")
    return f"{cores()}-core {_cpuinfo('model name') or platform.machine()}, {best}{memory_gib:.0f} GiB"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpuinfo(field: str) -> str:
    """A field of Linux's account of the first processor, "" elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(field)), "")
