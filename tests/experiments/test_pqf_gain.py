"""The filter's gain is that of the files: with and without it, coded by the codec itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clic_jax.coding import codec
from clic_jax.quality import Quality, QualityError
from experiments import pqf_gain
from tests.coding.test_codec import model, picture  # noqa: F401  (a fixture)
from tests.micro import MICRO


@pytest.mark.parametrize("hundredths", [100, 10000])
def test_gain_is_the_difference_of_two_files(model, hundredths):  # noqa: F811
    params, data = jax.tree.map(jnp.asarray, model[0]), model[1]
    bare = dataclasses.replace(MICRO, model=dataclasses.replace(MICRO.model, pqf="none"))
    x = picture(128, 192, 4)
    costs = []
    for config in (MICRO, bare):
        coder = codec.Codec(config, params, "00000000", data | {"model": {}})
        coded, latents = coder.encode(x, Quality(hundredths))
        error = np.square(coder.show(latents, 128, 192).astype(float) - x).mean()
        lmbda = Quality(hundredths).lmbda(MICRO.model.lmbdas)
        costs.append((8 * len(coded.stream) + lmbda * error * 128 * 192, len(coded.stream)))
    row = pqf_gain.measure(codec.Codec(MICRO, params, "00000000", data), x, Quality(hundredths))
    expected = (costs[1][0] - costs[0][0]) / (8 * costs[0][1])
    assert row["net_gain"] == pytest.approx(expected, abs=16 / (8 * costs[0][1]))  # bytes round, twice
    assert row["net_gain"] >= 0 and row["share"] == pytest.approx(row["pqf_bytes"] / costs[0][1])


def test_command_line(model, tmp_path, capsys):  # noqa: F811
    from PIL import Image

    from clic_jax.checkpoints import published

    published.save_published(tmp_path / "micro", MICRO, model[0], {}, coding=model[1])
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture(64, 64)).save(tmp_path / "photos" / "a.png")
    out = tmp_path / "gain.json"
    arguments = ["--data", str(tmp_path / "photos"), "--model", str(tmp_path / "micro"), "--qualities", "50"]
    assert pqf_gain.main([*arguments, "--out", str(out)]) == 0
    assert "of 1 images" in capsys.readouterr().out and '"net_gain"' in out.read_text()
    with pytest.raises(QualityError):
        pqf_gain.main([*arguments[:-1], "0"])
