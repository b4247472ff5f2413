"""Tiles cover a picture once, and nobody sees where they meet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clic_jax.coding import codec, tiles
from clic_jax.quality import Quality
from tests.coding.test_codec import model  # noqa: F401  (a fixture)
from tests.micro import MICRO

sides = st.integers(1, 200).map(lambda n: 64 * n)
limits = st.integers(4, 40).map(lambda n: 64 * n)


@given(sides, limits)
def test_weights_add_up_to_one(size, tile):
    total = np.zeros(size)
    for span in tiles.spans(size, tile):
        assert 0 <= span.start < span.stop <= size and span.stop - span.start == len(span.weight)
        total[span.start : span.stop] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(sides, limits)
def test_tiles_are_alike_small_and_overlap(size, tile):
    spans = tiles.spans(size, tile)
    assert {(s.stop - s.start, s.start % 64) for s in spans} == {(spans[0].stop - spans[0].start, 0)}
    assert spans[0].stop - spans[0].start <= tile
    for before, after in zip(spans, spans[1:]):
        shared = before.stop - after.start
        assert tiles.OVERLAP <= shared
        assert not before.weight[-shared // 4 :].any() and not after.weight[: shared // 4].any()
    assert (len(spans) == 1) == (size <= tile)


@pytest.mark.parametrize("stride", [1, 16])
def test_run_of_a_pointwise_function_is_that_function(stride):
    image = np.random.default_rng(0).normal(size=(640, 448, 2)).astype(np.float32)
    image = image[::stride, ::stride].copy()
    seen = []

    def part(rows, columns):
        seen.append((rows.stop - rows.start, columns.stop - columns.start))
        return image[rows.start // stride : rows.stop // stride, columns.start // stride : columns.stop // stride]

    np.testing.assert_allclose(tiles.run(part, 640, 448, 256, stride=stride), image, atol=1e-6)
    assert len(seen) == 12 and set(seen) == {(256, 256)}


@pytest.mark.parametrize("tile", [0, 64, 300, -256])
def test_tile_sizes_that_cannot_be(tile):
    with pytest.raises(tiles.TileError, match="multiple of 64"):
        tiles.check(tile)


def test_symbols_do_not_depend_on_the_decoders_tiles(model):  # noqa: F811
    """One file, decoded with tiles and without: the same latents, and pictures that differ hardly."""
    from tests.conftest import photograph

    coder = codec.Codec(MICRO, model[0], "00000000", model[1])
    x = photograph(500, 700)
    coded, latents = coder.encode(x, Quality(5000), tile=256)
    whole, _ = coder.encode(x, Quality(5000))
    assert abs(len(coded.stream) - len(whole.stream)) < 0.02 * len(whole.stream)
    read = coder.read(coded.stream, coded.pqf_bytes is not None, coded.check, 500, 700, Quality(5000))
    np.testing.assert_array_equal(read.y_hat, latents.y_hat)
    shown = {tile: coder.show(read, 500, 700, tile=tile).astype(float) for tile in (256, 1024)}
    errors = {tile: np.square(image - x).mean() for tile, image in shown.items()}
    assert abs(10 * np.log10(errors[256] / errors[1024])) < 0.05
    np.testing.assert_array_equal(shown[256], coder.show(latents, 500, 700, tile=256))
