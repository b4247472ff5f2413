"""What a benchmark needs to know of JAX's device: its matmul peak, its memory, and what was compiled meanwhile."""

import contextlib
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax.model import products
from experiments.benchmark.stopwatch import repeat, timed

WORTH_IT = 0.85  # share of float32's time that products of bfloat16 may take, since they are less exact
PEAK_SIZE = {"cpu": 2048}  # side of the matrices; 8192 on accelerators
# dense products without sparsity, 1e12 FLOP/s, as their makers publish them, by compute type (TrainConfig.dtype) and
# by how JAX's name of the device begins; the first that fits
PUBLISHED_TFLOPS = {
    "NVIDIA H100 PCIe": {"float32": 51, "tensorfloat32": 378, "bfloat16": 756},
    "NVIDIA H100": {"float32": 67, "tensorfloat32": 494, "bfloat16": 989},
    "NVIDIA H200": {"float32": 67, "tensorfloat32": 494, "bfloat16": 989},
    "NVIDIA A100": {"float32": 19.5, "tensorfloat32": 156, "bfloat16": 312},
    "TPU v4": {"bfloat16": 275},
    "TPU v5 lite": {"bfloat16": 197},
    "TPU v5": {"bfloat16": 459},
    "TPU v6 lite": {"bfloat16": 918},
}
_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


def matmul_peak(dtype: str = "float32") -> float:
    """Multiply-accumulates a second of the default device in large square matrix products: the best of several.

    dtype: a compute type (`TrainConfig.dtype`); its products are as exact as those of a model that is computed in it.
    """
    n, dtype = PEAK_SIZE.get(jax.default_backend(), 8192), None if dtype == "float32" else dtype
    a = products.in_type(jax.random.normal(jax.random.key(0), (n, n)), dtype)
    product = jax.jit(lambda a, b: products.correlate(a, b, 1, dtype))
    product(a, a).block_until_ready()
    return n**3 / min(repeat(lambda: product(a, a).block_until_ready(), 20, 1.0))


def quicker_in_bfloat16() -> bool:
    """Whether "bfloat16_products" gain here: a layer and its gradients, measured for a second in either compute type.

    True by assumption for accelerators, whose matrix units are made for it.
    """
    if jax.default_backend() != "cpu":
        return True
    x, kernel = jax.random.normal(jax.random.key(0), (1, 48, 48, 96)), jnp.full((3, 3, 96, 96), 0.1)

    def call_of(dtype):
        layer = functools.partial(products.correlate, stride=1, dtype=dtype)
        both = jax.jit(lambda x, kernel: jax.vjp(layer, x, kernel)[1](x))
        return lambda: jax.block_until_ready(both(x, kernel))

    calls = [call_of(dtype) for dtype in ("bfloat16_products", None)]
    for call in calls:
        call()
    # in turns, and the best of each: whatever else the processor does meanwhile then tells little
    quick, exact = np.min([[timed(call) for call in calls] for _ in range(50)], axis=0)
    return quick < WORTH_IT * exact


def published_peak(kind: str, dtype: str) -> float | None:
    """Multiply-accumulates a second of a device of that kind in a compute type, by its maker; None where not known."""
    dtype = "bfloat16" if dtype == "bfloat16_products" else dtype
    found = next((peaks for name, peaks in PUBLISHED_TFLOPS.items() if kind.startswith(name)), {}).get(dtype)
    return found and found * 1e12 / 2


def name() -> str:
    """What JAX calls its default device."""
    return jax.devices()[0].device_kind


def peak_memory_mib() -> float | None:
    """The most memory that arrays have taken on the device; None where it keeps no account, as a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


class Compilations:
    """Programs asked of the compiler, and the seconds during which any thread traced or compiled."""

    def __init__(self):
        self.count, self._spans = 0, []

    def _listen(self, event: str, duration: float, **_):
        self.count += event == _COMPILE_EVENTS[-1]
        if event in _COMPILE_EVENTS:
            end = time.perf_counter()
            self._spans.append((end - duration, end))

    @property
    def seconds(self) -> float:
        """The union of all spans: they nest, and those of two threads overlap."""
        total, until = 0.0, 0.0
        for begin, end in sorted(self._spans):
            total += max(0.0, end - max(begin, until))
            until = max(until, end)
        return total


@contextlib.contextmanager
def compilations():
    """A `Compilations` of what happens inside the block."""
    found = Compilations()
    jax.monitoring.register_event_duration_secs_listener(found._listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(found._listen)


def first_call(function) -> dict:
    """Calls function() for the first time: its seconds, and those of them in which something compiled."""
    begin = time.perf_counter()
    with compilations() as found:
        function()
    return {
        "seconds": time.perf_counter() - begin,
        "compile_seconds": found.seconds,
        "programs": found.count,
    }
