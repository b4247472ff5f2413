"""The coder in Python against constriction: the same bytes, the same symbols, the same refusals."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clic_jax
from clic_jax.coding import plain_coder, range_coder, tables
from clic_jax.errors import UserError
from tests.coding import test_range_coder
from tests.coding.test_range_coder import MIXED, TABLES, gaussian_symbols


@pytest.fixture(scope="module")
def plain():
    """`range_coder` as it is where constriction is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "constriction", None)
        code = compile(open(range_coder.__file__).read(), range_coder.__file__, "exec")
        module = type(sys)("plain_range_coder")
        exec(code, module.__dict__)
    assert module.constriction is None
    return module


def written(coder, calls, used):
    encoder = coder.Encoder()
    for symbols, index in calls:
        encoder.encode(symbols, index, used)
    return encoder.finish()


def read(coder, data, calls, used):
    decoder = coder.Decoder(data)
    try:
        return [decoder.decode(index, used).tolist() for _, index in calls]
    except UserError as error:
        return str(error)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_the_same_streams(plain, data):
    used = data.draw(st.sampled_from([TABLES, MIXED, TABLES[:1], MIXED[3:]]))
    value = st.integers(-4, 4) | st.integers(-400, 400) | st.integers(tables.VALUE_MIN, tables.VALUE_MAX)
    call = st.lists(st.tuples(value, st.integers(0, len(used) - 1)), max_size=60)
    calls = [
        (np.array([v for v, _ in c], np.int32), np.array([i for _, i in c], np.int64))
        for c in data.draw(st.lists(call, max_size=4))
    ]
    stream = written(range_coder, calls, used)
    assert written(plain, calls, used) == stream
    assert read(plain, stream, calls, used) == [symbols.tolist() for symbols, _ in calls]


@given(st.binary(max_size=60), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_what_no_encoder_wrote(plain, data, seed):
    """Any bytes decode to the same symbols, or are refused at the same symbol."""
    calls = [gaussian_symbols(seed, n, 2.0) for n in (1, 30, 7)]
    assert read(plain, data, calls, TABLES) == read(range_coder, data, calls, TABLES)


def test_words_that_no_encoder_writes(plain):
    data = b"\xff" * 8
    calls = [gaussian_symbols(0, 3)]
    assert "words that no encoder writes" in read(plain, data, calls, TABLES) == read(range_coder, data, calls, TABLES)


def test_a_photographs_worth(plain):
    """Many settled words, and so carries through several of them."""
    calls = [gaussian_symbols(seed, 20_000, 0.5) for seed in range(3)]
    stream = written(range_coder, calls, TABLES)
    assert written(plain, calls, TABLES) == stream
    assert read(plain, stream, calls, TABLES) == [symbols.tolist() for symbols, _ in calls]


@pytest.mark.parametrize("words, expected", [([0], [1]), ([5, 0xFFFFFFFF, 0xFFFFFFFF], [6, 0, 0])])
def test_carry(words, expected):
    plain_coder._carry(words)
    assert words == expected


def test_the_rare_end(plain, monkeypatch):
    """`test_range_coder` has the calls whose interval begins less than a word below a carry; and its golden bytes."""
    monkeypatch.setattr(test_range_coder, "range_coder", plain)
    test_range_coder.test_carry_into_finished_words_at_the_end()
    test_range_coder.test_golden_bytes()


def test_a_picture_without_constriction(tmp_path):
    """The command line where constriction is not installed writes and reads the same files."""
    code = (
        "import sys; sys.modules['constriction'] = None\n"
        "import clic_jax, numpy as np; x = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)\n"
        "data = clic_jax.compress(x, model='clic-tiny', runtime='onnx')\n"
        "assert clic_jax.decompress(data, runtime='onnx').shape == x.shape; sys.stdout.buffer.write(data)"
    )
    x = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == clic_jax.compress(x, model="clic-tiny", runtime="onnx")
