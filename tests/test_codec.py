"""The codec's core: what is decoded is what the encoder showed, at the size that the model estimates, anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax import codec, coding, evaluation, initialization, published
from clic_jax.config import Config
from clic_jax.container import Desync
from tests.micro import MICRO
from tests.test_model import random_params

ROOT = Path(__file__).parent.parent
C = MICRO.model


def picture(h, w, seed=0):
    """A smooth photograph-like image with edges and some noise, uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:h, :w] / 40.0
    waves = [np.sin(rows * a + columns * b + p) for a, b, p in rng.uniform(0.2, 2, (3, 3))]
    image = np.stack(waves, -1) * 60 + 128 + 40 * (rows + columns > 2)[..., None] + rng.normal(size=(h, w, 3)) * 4
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    """(parameters, coding data) of a micro model that codes photographs tolerably: a transform codec with random
    rest."""
    crops = np.stack([picture(128, 128, seed) for seed in range(8)])
    params = initialization.transform_codec(random_params(C), C, crops)
    params["prior"]["median"][:] = 0  # as training leaves it
    return params, coding.measure(C, params, crops)


@pytest.fixture(scope="module")
def coder(model):
    return codec.Codec(MICRO, jax.tree.map(jnp.asarray, model[0]), "00000000", model[1])


def encode(coder, x, hundredths, **tile):
    """(what a file holds, the encoder's own reconstruction)."""
    coded, latents = coder.encode(x, hundredths, **tile)
    return coded, coder.show(latents, *x.shape[:2], **tile)


def decode(coder, coded, shape, hundredths, **tile):
    latents = coder.read(coded.stream, coded.pqf_bytes is not None, coded.check, *shape[:2], hundredths)
    return coder.show(latents, *shape[:2], **tile)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 129), (64, 64), (128, 192)])
@pytest.mark.parametrize("hundredths", [100, 5050, 10000])
def test_decoded_is_what_the_encoder_showed(coder, size, hundredths):
    x = picture(*size)
    coded, shown = encode(coder, x, hundredths)
    assert shown.shape == x.shape and shown.dtype == np.uint8
    np.testing.assert_array_equal(decode(coder, coded, x.shape, hundredths), shown)
    again, _ = coder.encode(x, hundredths)
    assert again == coded


def test_quality_is_monotone(coder):
    x = picture(128, 192, 4)
    points = []
    for hundredths in (100, 3000, 6000, 10000):
        coded, shown = encode(coder, x, hundredths)
        points.append((len(coded.stream), -np.square(shown.astype(float) - x).mean()))
    assert points == sorted(points) and len(set(points)) == 4


@pytest.mark.parametrize("hundredths", [100, 10000])
def test_size_is_the_estimate(coder, model, hundredths):
    """Within 1 % and 64 bytes of the float model's own bit count."""
    x = picture(192, 256, 2)
    coded, shown = encode(coder, x, hundredths)
    _, bits = evaluation.reconstruct(C, model[0], x, coding.quality_lmbda(C, hundredths))
    spent = len(coded.stream) - (coded.pqf_bytes or 0)
    assert abs(spent - bits / 8) <= 0.01 * bits / 8 + 64


def test_parts_add_up(coder):
    coded, _ = coder.encode(picture(128, 128), 5000)
    assert 0 < coded.z_bytes < len(coded.stream)


def test_filter_never_makes_a_file_worse(model):
    """With basis networks of any kind, the cost of a file with the filter is at most that of the file without."""
    params = jax.tree.map(jnp.asarray, model[0])
    with_filter = codec.Codec(MICRO, params, "00000000", model[1])
    import dataclasses

    bare = dataclasses.replace(MICRO, model=dataclasses.replace(C, pqf="none"))
    without = codec.Codec(bare, params, "00000000", model[1])
    used = 0
    for seed in range(6):
        x = picture(*((128, 128) if seed % 2 else (65, 129)), seed)  # the second is padded to almost twice its size
        for hundredths in (100, 10000):
            costs = []
            for coder in (with_filter, without):
                coded, shown = encode(coder, x, hundredths)
                error = np.square(shown.astype(float) - x).mean()
                costs.append(coding.quality_lmbda(C, hundredths) * error * x[..., 0].size + 8 * len(coded.stream))
            used += coded.pqf_bytes is not None
            assert costs[0] <= costs[1] + 8  # a byte of rounding in the stream's end


def test_out_of_step_raises(coder):
    x = picture(64, 64)
    coded, _ = coder.encode(x, 5000)
    with pytest.raises(Desync):
        coder.read(coded.stream, False, coded.check ^ 1, 64, 64, 5000)
    with pytest.raises(Desync):
        coder.read(coded.stream, coded.pqf_bytes is not None, coded.check, 64, 64, 5100)


def test_quality_out_of_range():
    for quality in (0.5, 101, float("nan")):
        with pytest.raises(coding.QualityError, match="choose 1"):
            coding.check_quality(quality)
    assert coding.check_quality(50) == 5000
    assert coding.quality_lmbda(C, 100) == pytest.approx(C.lmbdas[0])
    assert coding.quality_lmbda(C, 10000) == pytest.approx(C.lmbdas[-1])


OTHER_SETTINGS = {
    "one thread": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    "old processor": {"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2"},
    "unoptimised": {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    "float64": {"JAX_ENABLE_X64": "1"},
    "no jit": {"JAX_DISABLE_JIT": "1"},
}

DECODE = """
import json, sys
import numpy as np, jax
from clic_jax import codec, published
sys.path.insert(0, {root!r})
config, params, identity = published.load_published({folder!r})
coder = codec.Codec(config, params, identity, published.load_coding({folder!r}))
stream = bytes.fromhex(sys.stdin.read())
image = coder.show(coder.read(stream, {filtered}, {check}, 65, 129, 5000), 65, 129)
print(json.dumps({{"sum": int(image.astype(np.int64).sum()), "image": image.tobytes().hex()}}))
"""


@pytest.mark.parametrize("setting", OTHER_SETTINGS)
def test_file_decodes_under_other_settings(model, setting, tmp_path_factory):
    """The same latents (the checksum passes), pixels equal to within one grey level, in another process and setting."""
    folder = tmp_path_factory.mktemp("published") / "micro"
    identity = published.save_published(folder, Config("micro", C, MICRO.train), model[0], {}, coding=model[1])
    config, params, _ = published.load_published(folder)
    coder = codec.Codec(config, params, identity, published.load_coding(folder))
    coded, shown = encode(coder, picture(65, 129), 5000)
    script = DECODE.format(root=str(ROOT), folder=str(folder), filtered=coded.pqf_bytes is not None, check=coded.check)
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""} | OTHER_SETTINGS[setting]
    run = subprocess.run(
        [sys.executable, "-c", script], env=env, input=coded.stream.hex(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    image = np.frombuffer(bytes.fromhex(json.loads(run.stdout)["image"]), np.uint8).reshape(shown.shape)
    assert np.abs(image.astype(int) - shown).max() <= 1
