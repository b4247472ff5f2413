"""Runs the tests on the CPU with eight virtual devices, so that sharding is tested on any machine."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGE = 2**30 + 2**29  # bytes that a worker may take between two tests

# Before the first import of jax. On a GPU machine, JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu runs the GPU tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is the compiler's, which is three times as quick where it neither optimises nor generates code
# by way of MLIR (jax 0.11 knows no other way); what is exact must be so either way (experiments.portability).
QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    QUICK_COMPILER += " --xla_cpu_use_fusion_emitters=false"
for flag in ("--xla_force_host_platform_device_count=8", *QUICK_COMPILER.split()):
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
# Compiled programs of the tests, those of their subprocesses too, are kept here and not in the user's own cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from clic_jax import runtime  # noqa: E402
from clic_jax.checkpoints import published  # noqa: E402
from clic_jax.coding import measured  # noqa: E402
from clic_jax.model.clic import init_params  # noqa: E402
from clic_jax.training import pca_start  # noqa: E402
from tests.micro import MICRO  # noqa: E402

runtime.use_cache()


def pytest_runtest_setup(item):
    """Skips tests marked `gpu` where JAX runs on the CPU."""
    if item.get_closest_marker("gpu") and jax.default_backend() == "cpu":
        pytest.skip("needs a GPU, and JAX_PLATFORMS=cuda,cpu")


def pytest_collection():
    """No garbage collection while tests are compiled: Python 3.11 fails there when JAX's collector hook runs inside."""
    gc.disable()


def pytest_collection_modifyitems(items):
    """The files with the longest tests first, or one worker waits for the other at the end."""
    long = [ROOT / "tests" / room for room in ("training", "experiments")]
    items.sort(key=lambda item: next((i for i, room in enumerate(long) if room in item.path.parents), len(long)))


def pytest_collection_finish():
    """Collects again."""
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Gives a file's compiled programs back at its end: a worker would keep those of all files, 5 GB of them."""
    yield
    runtime.release_memory(programs=True)


@pytest.fixture(autouse=True)
def forget_programs_of_large_files():
    """The same within a file, once they are many; those still wanted come from the cache on disk."""
    yield
    pages = Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > LARGE:
        runtime.release_memory(programs=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: fixtures computed with the authors' code, and the photographs."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (fixtures and photographs), which is not part of the repository")
    return folder


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3] that is smooth with some edges and grain, as photographs are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 64
    waves = sum(
        np.sin(random.uniform(-a, a, 3) * y + random.uniform(-a, a, 3) * x + random.uniform(0, 6, 3)) / a
        for a in (1, 2, 4, 8, 16)
    )
    edge = np.sin(random.uniform(-3, 3) * y + random.uniform(-3, 3) * x) > 0.3
    value = 128 + 45 * waves + 30 * edge + random.normal(0, 2, (height, width, 1))
    return np.clip(value, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def published_micro(tmp_path_factory) -> Path:
    """The published folder of a micro model: untrained, but a transform codec of smooth pictures, so ready to code."""
    config = MICRO.model
    crops = np.stack([photograph(128, 128, seed) for seed in range(16)])
    params = init_params(config)
    params = pca_start.transform_codec(params, config, crops)
    folder = tmp_path_factory.mktemp("published") / "micro"
    published.save_published(folder, MICRO, params, {}, coding=measured.measure(config, params, crops))
    return folder
