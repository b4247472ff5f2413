"""Streams come back exactly, cost what the integer tables say, never change, and damaged ones end in bounded time."""

import hashlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clic_jax import scales
from clic_jax.coding import range_coder, tables

TABLES = tables.y_tables("gaussian")
GOLDEN = (
    "00000a000009ffec09fff609fff60bfff40bfff40bfff40e0015396d2e09ded5038119dce11c8fe2280b3c7de8ad"
    "675fb6cced37d32a8c175000558af06089861f7b55b5f991d820916d02fbd6d9e8d85393dd806048b2717a3433dc"
)
GOLDEN_LARGE = "60ddd2a112d6c0adb3fc301630c945fb6fbce40ddffa2e16a0062fd89d4929e5"
MIXED = (  # shapes that a learned prior may have: two symbols, lopsided, off zero, wide
    tables.pmf_table([1.0], 7),
    tables.pmf_table([0.999, 0.0005], -1),
    tables.pmf_table([0.2, 0.0, 0.5, 0.1], 100),
    tables.pmf_table(np.full(5000, 1 / 5000), -3000),
    tables.Table(tables.VALUE_MAX, np.array([1, 2**24 - 1])),
)


def gaussian_symbols(seed, n, median=0.3, spread=1.0):
    """(symbols, index) as in a photograph: many narrow tables, few wide ones."""
    rng = np.random.default_rng(seed)
    index = (
        np.searchsorted(scales.SCALE_TABLE, median * np.exp(spread * rng.normal(size=n))).clip(0, 63).astype(np.uint8)
    )
    return np.rint(rng.normal(size=n) * scales.SCALE_TABLE[index]).astype(np.int32), index


def code(calls, used):
    """The stream of all (symbols, index) of `calls`, after decoding it to the same symbols."""
    encoder = range_coder.Encoder()
    for symbols, index in calls:
        encoder.encode(symbols, index, used)
    data = encoder.finish()
    decoder = range_coder.Decoder(data)
    for symbols, index in calls:
        decoded = decoder.decode(index, used)
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, symbols)
    return data


@pytest.mark.parametrize("used", [TABLES, MIXED], ids=["gaussian", "mixed"])
def test_constriction_codes_with_our_integers(used):
    """Every edge of every table, read back from the coder's state: one step out and files would break silently."""
    full = (1 << 64) - 1  # the first interval is [0, full), cut into 2**24 parts of `unit`
    unit = full >> 24
    for table in used:
        model, edges = range_coder._model(table), np.cumsum([0, *table.freq.tolist()]).tolist()
        for rank in range(table.freq.size):
            encoder = constriction.stream.queue.RangeEncoder()
            encoder.encode(rank, model)
            assert encoder.pos() == (0, (edges[rank] * unit, int(table.freq[rank]) * unit))
            for point in (edges[rank] * unit, edges[rank + 1] * unit - 1):
                decoder = constriction.stream.queue.RangeDecoder(np.array([point >> 32, point % 2**32], np.uint32))
                assert decoder.decode(model) == rank


@pytest.mark.parametrize("used", [TABLES, MIXED], ids=["gaussian", "mixed"])
def test_every_symbol_of_every_table(used):
    for i, table in enumerate(used):
        symbols = np.arange(table.first, table.last + 1)
        symbols = np.append(symbols, [tables.VALUE_MIN, tables.VALUE_MAX])  # escapes, but in one table
        index = np.full(symbols.size, i)
        data = code([(symbols, index)], used)
        ranks = np.arange(table.freq.size + 1).clip(max=table.freq.size - 1)
        length = (24 - np.log2(table.freq[ranks])).sum() + 16 * 2
        if table.last == tables.VALUE_MAX:
            length = 24 - np.log2(table.freq[[0, 1, 0]]).sum() + 48 + 16
        assert range_coder.bits(symbols, index, used) == pytest.approx(length)
        assert len(data) <= length / 8 * 1.001 + 8


def test_golden_bytes():
    """The format. If this fails, old files cannot be read any more: change the version of the container."""
    n = np.arange(40)
    calls = [((n * 7919 % 13) - 6, n * 5 % 64), (n[:3] * 30_000 - 30_000, n[:3]), (n[:0], n[:0]), (n % 3 - 1, n % 8)]
    data = code(calls, TABLES)
    assert data.hex() == GOLDEN
    n = np.arange(20_000)
    symbols, index = (n * 7919 % 4001 - 2000) // 40, n % 64
    large = code([(symbols[:5000], index[:5000]), (symbols[5000:], index[5000:])], TABLES)
    assert hashlib.sha256(large).hexdigest() == GOLDEN_LARGE


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_round_trip(data):
    """Several calls on one stream, each with its own tables' mix, outliers up to both ends, empty and single calls."""
    used = data.draw(st.sampled_from([TABLES, MIXED, TABLES[:1], MIXED[3:]]))
    value = st.integers(-4, 4) | st.integers(-400, 400) | st.integers(tables.VALUE_MIN, tables.VALUE_MAX)
    call = st.lists(st.tuples(value, st.integers(0, len(used) - 1)), max_size=40)
    dtype = data.draw(st.sampled_from([np.uint8, np.int32, np.uint64]))
    calls = [
        (np.array([v for v, _ in c], np.int32), np.array([i for _, i in c], dtype))
        for c in data.draw(st.lists(call, max_size=4))
    ]
    stream = code(calls, used)
    assert not stream.endswith(b"\0")
    assert len(stream) <= sum(range_coder.bits(*c, used) for c in calls) / 8 * 1.001 + 4


def test_nothing_costs_nothing():
    nothing = np.zeros(0, np.int32)
    assert code([], TABLES) == code([(nothing, nothing)], TABLES) == b""
    assert range_coder.bits(nothing, nothing, TABLES) == 0


def test_many_short_streams():
    """The end of a stream, in every situation that occurs at random: shortest, and still decoded exactly."""
    excess = []
    for seed in range(2000):
        symbols, index = gaussian_symbols(seed, seed % 40, median=2.0)
        excess.append(len(code([(symbols, index)], TABLES)) - range_coder.bits(symbols, index, TABLES) / 8)
    assert max(excess) < 2.1 and np.mean(excess) < 0.6


def test_carry_into_finished_words_at_the_end():
    """The one ending that random streams do not reach: the interval begins less than a word below a carry."""

    def table(start, width):
        return tables.Table(0, np.array([start, width, 2**24 - start - width - 1, 1]))

    used = (table(2**23, 1), table(128, 1), table(32768, 1000))
    encoder = range_coder.Encoder()
    for i in range(3):
        encoder.encode(np.array([1]), np.array([i]), used)
    low = encoder._queue.pos()[1][0]
    assert low > 2**64 - 2**32
    decoder = range_coder.Decoder(encoder.finish())
    assert [decoder.decode(np.array([i]), used).item() for i in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("median, spread", [(0.15, 0.7), (0.3, 1.0), (3.0, 2.0)])
def test_size_equals_ideal(median, spread):
    """300,000 symbols in ten calls: 0.1 % + 8 bytes is required, 0.005 % + 8 bytes is so."""
    symbols, index = gaussian_symbols(0, 300_000, median, spread)
    calls = list(zip(np.array_split(symbols, 10), np.array_split(index, 10)))
    ideal = sum(range_coder.bits(*call, TABLES) for call in calls) / 8
    assert ideal <= len(code(calls, TABLES)) < ideal * 1.00005 + 8


def test_bits_equals_the_sum_of_logarithms():
    symbols, index = gaussian_symbols(3, 500)
    symbols[[5, 77]] = -30_000, 4000
    expected = 0.0
    for symbol, i in zip(symbols, index):
        inside = TABLES[i].first <= symbol <= TABLES[i].last
        freq = TABLES[i].freq[symbol - TABLES[i].first if inside else -1]
        expected += -np.log2(freq / 2**24) + (0 if inside else 16)
    assert range_coder.bits(symbols, index, TABLES) == pytest.approx(expected, rel=1e-12)


def test_bytes_do_not_depend_on_how_tables_alternate():
    """Only on the sequence within each table: sorting by table beforehand changes nothing."""
    symbols, index = gaussian_symbols(1, 1000)
    order = np.argsort(index, kind="stable")
    assert code([(symbols, index)], TABLES) == code([(symbols[order], index[order])], TABLES)


def test_finish_can_be_repeated():
    """It is a snapshot: coding goes on after it."""
    symbols, index = gaussian_symbols(2, 100)
    encoder = range_coder.Encoder()
    encoder.encode(symbols, index, TABLES)
    assert encoder.finish() == encoder.finish() == code([(symbols, index)], TABLES)
    encoder.encode(symbols, index, TABLES)
    assert encoder.finish() == code([(symbols, index)] * 2, TABLES)


def test_damaged_streams():
    """Truncated, flipped, extended or random bytes: symbols in range, or StreamError; as many as asked for, no more."""
    rng = np.random.default_rng(0)
    symbols, index = gaussian_symbols(4, 300, median=1.0)
    good = code([(symbols, index)], TABLES)
    outcomes = {"same": 0, "other": 0, "error": 0}
    for i in range(3000):
        data = bytearray(good)
        if i % 4 == 0:
            data = data[: rng.integers(len(data))]
        elif i % 4 == 1:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        elif i % 4 == 2:
            data += rng.bytes(rng.integers(1, 9))
        else:
            data = bytearray(rng.bytes(rng.integers(0, 100)))
        if i % 7 == 0:
            data[:3] = b"\xff\xff\xff"  # no encoder writes 24 ones first, other than for the last symbol
        try:
            decoded = range_coder.Decoder(bytes(data)).decode(index, TABLES)
        except range_coder.StreamError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
            outcomes["error"] += 1
            continue
        assert (
            decoded.shape == symbols.shape and decoded.min() >= tables.VALUE_MIN and decoded.max() <= tables.VALUE_MAX
        )
        outcomes["same" if (decoded == symbols).all() else "other"] += 1
    assert outcomes["other"] > 1000
    with pytest.raises(range_coder.StreamError):
        range_coder.Decoder(b"\xff" * 16).decode(index, TABLES)


def test_all_escapes_are_bounded():
    """The worst that a stream can ask for: an escape for each symbol, still one 16-bit value each."""
    index = np.zeros(100_000, np.uint8)
    symbols = np.random.default_rng(0).integers(1000, 30_000, index.size)
    data = code([(symbols, index)], TABLES)
    assert len(data) == pytest.approx(index.size * (24 + 16) / 8, rel=1e-3)


@pytest.mark.parametrize("symbol", [tables.VALUE_MAX + 1, tables.VALUE_MIN - 1, 2**40])
def test_symbols_out_of_range(symbol):
    encoder = range_coder.Encoder()
    with pytest.raises(range_coder.StreamError, match="can be coded"):
        encoder.encode(np.array([0, symbol]), np.array([0, 0]), TABLES)
    assert encoder.finish() == b""  # nothing of the call was written


@pytest.mark.parametrize("index", [[64, 0], [-1, 0], [0.0, 1.0], [0, 0, 0], [[0, 0]]])
def test_arguments_that_do_not_fit(index):
    symbols = np.array([0, 0])
    for call in (
        lambda: range_coder.Encoder().encode(symbols, np.array(index), TABLES),
        lambda: range_coder.bits(symbols, np.array(index), TABLES),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
    with pytest.raises(ValueError, match="symbols must be 2 integers"):
        range_coder.Encoder().encode(np.array([0.0, 1.0]), np.array([0, 0]), TABLES)
    if index != [0, 0, 0]:
        with pytest.raises(ValueError, match="index must be"):
            range_coder.Decoder(b"").decode(np.array(index), TABLES)


def test_more_than_256_tables():
    """Wider indexes sort by another path."""
    used = TABLES * 5
    rng = np.random.default_rng(5)
    index = rng.integers(0, 320, 2000)
    symbols = np.rint(rng.normal(size=2000) * scales.SCALE_TABLE[index % 64]).astype(np.int32)
    code([(symbols, index)], used)
