"""Runs every test on the CPU with eight virtual devices, so that sharding is tested on any machine."""

import os
from pathlib import Path

# Before the first import of jax. On a GPU machine, JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu runs the GPU tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import pytest  # noqa: E402

from clic_jax import compilation  # noqa: E402

ROOT = Path(__file__).parent.parent

compilation.use_cache()


def pytest_runtest_setup(item):
    """Skips tests marked `gpu` where JAX runs on the CPU."""
    if item.get_closest_marker("gpu") and jax.default_backend() == "cpu":
        pytest.skip("needs a GPU, and JAX_PLATFORMS=cuda,cpu")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: fixtures computed with the authors' code, and the photographs."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (fixtures and photographs), which is not part of the repository")
    return folder
