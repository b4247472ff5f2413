"""Mutated files, through the whole decoder: the exact picture or a named error, soon, in little memory.

A mutant keeps its old checksum, which nearly always gives it away at once, or gets the right one ("sealed"), which lets
it through to the model, the entropy decoder and the networks. No damage makes a sealed mutant: it is a forgery, and one
that says another size, another quality or another correction by the filter is another valid file. So those may yield a
picture that nobody encoded, but never from latents that nobody encoded.
"""

import collections
import dataclasses
import io
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clic_jax import api
from clic_jax.coding import coefficients, filtering
from clic_jax.coding.range_coder import StreamError
from clic_jax.files import container
from clic_jax.files.container import FormatError, Tag, unpack
from tests.conftest import photograph
from tests.files.test_container import sealed
from tests.fuzz.__main__ import forget_peak, resident
from tests.fuzz.files import MUTATIONS, mutant

SECONDS = 60  # for one file: a decode takes 10 ms, but a size that is new to the process is compiled first
MAX_PIXELS = 64 * 64  # the limit that the caller gives: the mutants' pictures stay small
OTHER = "another picture"


@pytest.fixture(scope="module")
def originals(published_micro) -> list[tuple[bytes, np.ndarray]]:
    """(file, picture) of real files of 64x64 pixels or less: colour at three rates, grey, extras, one pixel, filter."""
    x = photograph(64, 64, 3)
    rich = Image.fromarray(np.dstack([x, x[..., 0]]))
    exif = Image.Exif()
    exif[0x010E] = "a description"
    file = io.BytesIO()
    rich.save(file, "PNG", icc_profile=bytes(range(256)), exif=exif)
    file.seek(0)
    pictures = [(x, 1), (x, 50), (x, 100), (x[..., 0], 70.25), (file, 30), (x[:1, :1], 90)]
    coded = [api.compress(picture, quality=quality, model=published_micro) for picture, quality in pictures]
    with pytest.MonkeyPatch.context() as patch:  # the filter does not pay in so small a picture, unless it is free
        patch.setattr(coefficients, "bits", np.zeros_like)
        patch.setattr(filtering, "LMBDA_MAX", np.inf)
        filtered = (api.compress(photograph(64, 64, seed), quality=100, model=published_micro) for seed in range(2, 22))
        coded.append(next(data for data in filtered if unpack(data)[0].pqf_bytes is not None))
    return [(data, api.decompress(data, model=published_micro)) for data in coded]


def outcome(data: bytes, original: tuple[bytes, np.ndarray], seal: bool, model: Path) -> tuple[str, bool]:
    """(what became of a mutant: "exact", an error's name, or OTHER; whether it got as far as the entropy decoder)."""
    file, picture = original
    try:
        header, _, extras = unpack(data, max_pixels=MAX_PIXELS)
        reached = header.model_id == unpack(file)[0].model_id
    except FormatError:
        header, reached = None, False
    try:
        with alarm(SECONDS):
            x = api.decompress(data, model=model, max_pixels=MAX_PIXELS)
    except (FormatError, StreamError) as error:
        assert str(error) and "\n" not in str(error)
        return type(error).__name__, reached
    assert reached and x.dtype == np.uint8 and x.shape[:2] == (header.height, header.width)
    if np.array_equal(x, picture):
        return "exact", reached
    assert seal, "damage went unnoticed"
    before, _, extras_before = unpack(file)
    counts = {"z_bytes": 0, "pqf_bytes": None}  # for `info` alone
    same = dataclasses.replace(header, **counts) == dataclasses.replace(before, **counts)
    same = same and extras.get(Tag.ALPHA) == extras_before.get(Tag.ALPHA)
    assert not same or before.pqf_bytes is not None or header.pqf_bytes is not None, "latents that nobody encoded"
    return OTHER, reached


class alarm:
    """Raises TimeoutError in the `with` block after so many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __enter__(self):
        self.handler = signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler)

    @staticmethod
    def ring(*_):
        raise TimeoutError("a file takes too long")


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_mutated_files(originals, published_micro, rng):
    number, data, seal = mutant(originals, rng)
    outcome(data, originals[number], seal, published_micro)


def test_the_originals_decode_and_their_mutants_differ(originals, published_micro):
    """The mutations do what they say: sealed anew, nothing changed is exact; each of them makes another file."""
    for data, picture in originals:
        assert outcome(sealed(data[:-3]), (data, picture), True, published_micro) == ("exact", True)
        for mutation in MUTATIONS:
            assert any(mutation(data[:-3], random.Random(seed)) != data[:-3] for seed in range(3))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")
def test_a_hundred_thousand_mutated_files(originals, published_micro):
    """All of them in one process, which grows by less than 1 GB; one in ten reaches the entropy decoder."""
    forget_peak()
    before, start, slowest = resident("VmRSS"), time.monotonic(), 0.0
    found, reached = collections.Counter(), 0
    for seed in range(100_000):
        number, data, seal = mutant(originals, random.Random(seed))
        begin = time.monotonic()
        name, deep = outcome(data, originals[number], seal, published_micro)
        slowest = max(slowest, time.monotonic() - begin)
        found[("sealed: " if seal else "") + name] += 1
        reached += deep
    grown = resident("VmHWM") - before
    print(f"\n{dict(found.most_common())}\n{reached} reached the entropy decoder; slowest {slowest:.1f} s;")
    print(f"{time.monotonic() - start:.0f} s in all; {grown / 1e6:.0f} MB more than before at most")
    assert reached >= 10_000 and grown < 1e9
    assert not [name for name in found if name == OTHER], "only sealed mutants may be other pictures"
    errors = {cls.__name__ for cls in FormatError.__subclasses__()} | {"StreamError"}
    assert {name.removeprefix("sealed: ") for name in found} <= errors | {"exact", OTHER}
    assert container.Desync.__name__ in {name.removeprefix("sealed: ") for name in found}
