"""One of our models, or a classical codec of Pillow's, timed on request for `experiments.benchmark --peers`.

See `stopwatch.serve` for what it is asked; `experiments.benchmark.peers_worker` is its counterpart.
"""

import functools
import io
import sys

import numpy as np
from PIL import Image

from clic_jax.checkpoints import arrays as stored_arrays
from experiments.benchmark.stopwatch import serve

CLASSICAL = {"avif": dict(speed=6), "webp": dict(method=6)}  # Pillow's format and options, at quality 50


def writes_files(model: str) -> bool:
    """Whether a published model can code pictures: those of some presets cannot yet."""
    from clic_jax.checkpoints import published

    try:
        published.load_coding(model)
    except stored_arrays.CheckpointError:
        return False
    return True


def ours(model: str, x: np.ndarray, crops: np.ndarray) -> dict:
    """The operations of a published model; x: uint8 [H, W, 3]."""
    import jax
    import jax.numpy as jnp

    from clic_jax import api, memory, runtime
    from clic_jax.checkpoints import published
    from clic_jax.model.clic import CLIC
    from clic_jax.training import steps

    runtime.use_cache()
    memory.keep_memory(everything=True)
    config, params, _ = published.load_published(model)
    params = jax.device_put(params)
    floats, file = jnp.asarray(crops, jnp.float32) / 255, b""

    @jax.jit
    def whole(params, x, lmbda):
        return CLIC(config.model).apply({"params": params}, x, lmbda)[:3]

    @functools.cache
    def gradient(batch):
        function = jax.value_and_grad(lambda p, *args: steps.loss_and_metrics(p, config, *args), has_aux=True)
        args = (params, floats[:batch], lmbdas(batch), jax.random.key(0))
        # as training does it: what the compiler leaves behind, or the cache of programs, is no memory of a step
        return functools.partial(steps.compile_step(jax.jit(function), *args), *args)

    def lmbdas(batch):
        return jnp.full(batch, config.model.lmbdas[0])

    def compress():
        nonlocal file
        file = api.compress(x, model=model)

    def forward(batch):
        jax.block_until_ready(whole(params, floats[:batch], lmbdas(batch)))

    def forward_backward(batch):
        jax.block_until_ready(gradient(batch)())

    coding = dict(compress=compress, decompress=lambda: api.decompress(file, model=model))
    return dict(forward=forward, forward_backward=forward_backward) | (coding if writes_files(model) else {})


def classical(kind: str, x: np.ndarray, threads: int) -> dict:
    """The operations of a format of Pillow's."""
    image, file = Image.fromarray(x), io.BytesIO()
    options = CLASSICAL[kind] | (dict(max_threads=threads) if kind == "avif" else {})

    def compress():
        file.seek(0)
        file.truncate()
        image.save(file, kind, quality=50, **options)

    return dict(compress=compress, decompress=lambda: Image.open(io.BytesIO(file.getvalue())).load())


def main(name: str, image: str, threads: str):
    """Serves `name`: a format of CLASSICAL, or a published model."""
    arrays = np.load(image)
    x, crops = arrays["image"][0], arrays["crops"]
    serve(classical(name, x, int(threads)) if name in CLASSICAL else ours(name, x, crops))


if __name__ == "__main__":
    main(*sys.argv[1:])
