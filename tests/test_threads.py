"""Several threads of one process code at a time, as those of a service do: the bytes and pixels of one alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clic_jax import api
from tests.conftest import photograph

SIZES = ((64, 64), (60, 50))  # both coded as 64x64, so that JAX compiles once


@pytest.mark.parametrize("runtime", ["onnx", "int8", "jax"])
def test_threads(runtime, published_micro):
    model = published_micro if runtime == "jax" else "clic-compact"
    pictures = [photograph(*SIZES[i % 2], seed=i) for i in range(12)]
    qualities = [10 + 7 * i for i in range(12)]
    api._open.cache_clear()  # so that the threads find nothing opened, and nothing compiled

    def code(item):
        x, quality = item
        data = api.compress(x, quality=quality, model=model, runtime=runtime)
        return data, api.decompress(data, model=model, runtime=runtime)

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(code, zip(pictures, qualities)))
    for item, (data, shown) in zip(zip(pictures, qualities), together):
        alone, expected = code(item)
        assert data == alone
        np.testing.assert_array_equal(shown, expected)
