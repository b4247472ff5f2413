"""The codec's core: what is decoded is what the encoder showed, at the size that the model estimates, anywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.coding import codec, filtering, measured
from clic_jax.errors import UserError
from clic_jax.files.container import Desync
from clic_jax.quality import Quality
from clic_jax.training import evaluation, pca_start
from experiments import device
from tests.micro import MICRO, MICRO_PAPER
from tests.model.test_clic import random_params

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
    """(parameters, coding data) of a micro model that codes tolerably: a transform codec with a random rest."""
    crops = np.stack([picture(128, 128, seed) for seed in range(8)])
    params = pca_start.transform_codec(random_params(C), C, crops)
    params["prior"]["median"][:] = 0  # as training leaves it
    return params, measured.measure(C, params, crops)


@pytest.fixture(scope="module")
def coder(model):
    return codec.Codec(MICRO, jax.tree.map(jnp.asarray, model[0]), "00000000", model[1])


def encode(coder, x, hundredths, **tile):
    """(what a file holds, the encoder's own reconstruction)."""
    coded, latents = coder.encode(x, Quality(hundredths), **tile)
    return coded, coder.show(latents, *x.shape[:2], **tile)


def decode(coder, coded, shape, hundredths, **tile):
    latents = coder.read(coded.stream, coded.pqf_bytes is not None, coded.check, *shape[:2], Quality(hundredths))
    return coder.show(latents, *shape[:2], **tile)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 129), (64, 64), (128, 192)])
@pytest.mark.parametrize("hundredths", [100, 5050, 10000])
def test_decoded_is_what_the_encoder_showed(coder, size, hundredths):
    x = picture(*size)
    coded, shown = encode(coder, x, hundredths)
    assert shown.shape == x.shape and shown.dtype == np.uint8
    np.testing.assert_array_equal(decode(coder, coded, x.shape, hundredths), shown)
    again, _ = coder.encode(x, Quality(hundredths))
    assert again == coded


def test_show_finds_its_programs_compiled(coder):
    """After `compile_show`, which runs beside `read`, a size that is new to the process compiles nothing."""
    h, w = 65, 448
    latents = codec.Latents(
        jnp.ones((1, 8, 28, C.latent_channels)), jnp.ones((1, 2, 7, C.hyper_layers[-1][0]), int), np.ones(1, np.float32)
    )
    coder.compile_show(h, w)
    with device.compilations() as found:
        assert coder.show(latents, h, w).shape == (h, w, 3)
    assert found.count == 0


def test_quality_is_monotone(coder):
    x = picture(128, 192, 4)
    points = []
    for hundredths in (100, 3000, 6000, 10000):
        coded, shown = encode(coder, x, hundredths)
        points.append((len(coded.stream), -np.square(shown.astype(float) - x).mean()))
    assert points == sorted(points) and len(set(points)) == 4


@pytest.mark.parametrize("hundredths", [100, 10000])
def test_size_is_the_estimate(model, hundredths):
    """Within 1 % and 64 bytes of the float model's own bit count, with tables of that model's density."""
    params, data = model
    assumed = codec.Codec(MICRO, jax.tree.map(jnp.asarray, params), "00000000", data | {"counts": []})
    x = picture(192, 256, 2)
    coded, _ = encode(assumed, x, hundredths)
    _, bits = evaluation.reconstruct(C, model[0], x, Quality(hundredths).lmbda(C.lmbdas))
    spent = len(coded.stream) - (coded.pqf_bytes or 0)
    assert abs(spent - bits / 8) <= 0.01 * bits / 8 + 64


def test_counts_are_of_the_symbols_that_files_hold(model):
    """All of them, and tables made from them shorten files of another picture, over all rates."""
    params, data = model
    counted = sum(sum(sum(row) for row in part) for part in data["counts"])
    assert 0.999 * 8 * 64 * 24 * len(C.lmbdas) < counted <= 8 * 64 * 24 * len(C.lmbdas)  # 8 crops, 64 positions of y
    assumed, measured = (
        codec.Codec(MICRO, jax.tree.map(jnp.asarray, params), "00000000", data | changed)
        for changed in ({"counts": []}, {})
    )
    before, after = (
        sum(
            len(coder.encode(picture(128, 128, 20), Quality(hundredths))[0].stream) for hundredths in (100, 5000, 10000)
        )
        for coder in (assumed, measured)
    )
    assert after < before


def test_parts_add_up(coder):
    coded, _ = coder.encode(picture(128, 128), Quality(5000))
    assert 0 < coded.z_bytes < len(coded.stream)


def test_filter_never_makes_a_file_worse(model, monkeypatch):
    """With basis networks of any kind, the cost of a file with the filter is at most that of the file without."""
    monkeypatch.setattr(filtering, "LMBDA_MAX", np.inf)  # tried everywhere, or this model would hardly use it
    params = jax.tree.map(jnp.asarray, model[0])
    with_filter = codec.Codec(MICRO, params, "00000000", model[1])
    bare = dataclasses.replace(MICRO, model=dataclasses.replace(C, pqf="none"))
    without = codec.Codec(bare, params, "00000000", model[1] | {"model": {}})
    used = 0
    for seed in range(6):
        x = picture(*((128, 128) if seed % 2 else (65, 129)), seed)  # the second is padded to almost twice its size
        for hundredths in (100, 5000, 10000):
            costs = []
            for coder in (with_filter, without):
                coded, shown = encode(coder, x, hundredths)
                error = np.square(shown.astype(float) - x).mean()
                costs.append(Quality(hundredths).lmbda(C.lmbdas) * error * x[..., 0].size + 8 * len(coded.stream))
                used += coded.pqf_bytes is not None
            assert costs[0] <= costs[1] + 8  # a byte of rounding in the stream's end
    assert used  # or nothing was compared


def test_filter_is_tried_at_low_rates_only(coder, monkeypatch):
    """Unless it is part of the model's training graph: it costs time, and hardly pays where bits are plenty."""
    asked = []
    monkeypatch.setattr(filtering, "fitted", lambda *args: asked.append(float(args[4].lmbda[0])))
    for hundredths in (100, 2000, 3900, 4100, 10000):
        coder.encode(picture(64, 64), Quality(hundredths))
    assert asked == pytest.approx([Quality(q).lmbda(C.lmbdas) for q in (100, 2000, 3900)])


def test_a_changed_config_is_noticed(model):
    """The id rests on the settings that decide what the numbers mean; the first released models did not say them."""
    other = dataclasses.replace(MICRO, model=dataclasses.replace(C, density="gaussian"))
    with pytest.raises(UserError, match="published with model.density = 'mixed'"):
        codec.Codec(other, model[0], "00000000", model[1])
    codec.Codec(other, model[0], "00000000", {k: v for k, v in model[1].items() if k != "model"})


def test_out_of_step_raises(coder):
    x = picture(64, 64)
    coded, _ = coder.encode(x, Quality(5000))
    with pytest.raises(Desync):
        coder.read(coded.stream, False, coded.check ^ 1, 64, 64, Quality(5000))
    with pytest.raises(Desync):
        coder.read(coded.stream, coded.pqf_bytes is not None, coded.check, 64, 64, Quality(5100))


def test_the_papers_graph_codes_too():
    """Three hyper decoders, scales as they are, a fixed rate, medians, the filter in the graph: exact, of that size."""
    config = MICRO_PAPER
    params = random_params(config.model)
    params["prior"]["median"] *= 10
    for k, g in enumerate(config.model.groups):  # scales about y's, as after training, not below 0
        params["context"][f"parameters_{k}"][f"conv{len(config.model.parameter_widths)}"]["bias"][g:] += 4
    data = measured.measure(config.model, params, np.stack([picture(128, 128, seed) for seed in range(8)]))
    assert data["arithmetic"] == 101  # which releases that know no medians refuse by name
    coder = codec.Codec(config, params, "00000000", data)
    x = picture(150, 260, 3)
    coded, shown = encode(coder, x, 5000)
    np.testing.assert_array_equal(decode(coder, coded, x.shape, 5000), shown)
    assert len(coded.stream) > 500
    _, bits = evaluation.reconstruct(config.model, params, x, config.model.lmbdas[0])
    coded, _ = codec.Codec(config, params, "00000000", data | {"counts": []}).encode(x, Quality(5000))
    assert abs(len(coded.stream) - (coded.pqf_bytes or 0) - bits / 8) <= 0.01 * bits / 8 + 64
