"""Devices that programs are compiled for without having them: an H100 for XLA:GPU, a slice of TPU v5e for libtpu.

Both need wheels that nothing else here does: `make lowering`.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from clic_jax.errors import UserError

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class NoCompiler(UserError):
    """The wheels of an accelerator are not installed."""


class Target(NamedTuple):
    """An accelerator that there is a compiler for."""

    platform: str  # as JAX calls it
    packages: tuple[str, ...]  # whose versions decide what comes out
    environment: dict[str, str]  # to be set before JAX's first use
    flags: str  # of XLA
    devices: Callable  # number -> that many devices


def _h100(count: int) -> list:
    from jax.experimental import topologies

    shape = f"1x1x{count}"
    return list(topologies.get_topology_desc(platform="cuda", target_config=H100, topology=shape).devices)


def _v5e(count: int) -> list:
    from jax.experimental import topologies

    return list(topologies.get_topology_desc("v5e:2x4", platform="tpu").devices)[:count]


TARGETS = {
    "h100": Target(
        "cuda",
        ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cudnn-cu12", "nvidia-cuda-nvcc-cu12"),
        # where no driver is, the plugin else does not register itself
        {"CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"},
        # what is tuned by running it, a device has to be there for
        "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
        _h100,
    ),
    "v5e": Target(
        "tpu",
        ("libtpu",),
        {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
        },
        "",
        _v5e,
    ),
}


def prepare(name: str) -> None:
    """Sets what JAX reads at its first use; call it before."""
    target = TARGETS[name]
    os.environ.update(target.environment | {"JAX_PLATFORMS": "cpu"})  # with both compilers, JAX would look for a TPU
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {target.flags}".strip()


def devices(name: str, count: int) -> list:
    """`count` devices of a target. Raises: NoCompiler saying how to get one."""
    try:
        return TARGETS[name].devices(count)
    except Exception as error:  # what a plugin that is absent, or another version, raises is its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NoCompiler(
            f"no compiler for {name} here ({reason}): make lowering, then "
            f".venv-lowering/bin/python -m experiments.lowering --target {name}"
        ) from None
