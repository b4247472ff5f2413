"""Files of torch.save without torch: those that torch wrote come out to the bit, those that mean harm are refused."""

import io
import os
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clic_jax.checkpoints import torch_files
from clic_jax.checkpoints.explained import CheckpointError
from clic_jax.checkpoints.torch_files import UnsafeCheckpoint, read_state
from tests.checkpoints.torch import written

WRITTEN = Path(__file__).parent / "torch"  # by torch 2.13
BASE = np.arange(48, dtype=np.float32).reshape(6, 8) / 4 - 3
EXPECTED = {
    "plain": BASE,
    "transposed": BASE.T,
    "strided": BASE[1:5, 2:7:2],
    "channels_last": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "half": BASE.astype(np.float16),
    "bfloat16": BASE.T,
    "double": BASE[0].astype(np.float64),
    "expanded": np.float32([[1, 2, 3]] * 2),
    "scalar": np.float32(1.25),
    "whole": np.int64(7),
    "empty": np.empty((0, 3), np.float32),
    "parameter": np.float32([np.inf, -0.0]),
}


@pytest.mark.parametrize("layout", ["zip", "row"])
def test_what_torch_wrote(layout):
    """Both layouts: views, shared storages, narrow types; of a training checkpoint the state dict, without `module.`"""
    found = read_state(WRITTEN / f"{layout}.pth.tar")
    assert found.keys() == EXPECTED.keys()
    for name, expected in EXPECTED.items():
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape, name
        assert found[name].tobytes() == np.asarray(expected).tobytes(), name


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(mark):
    """{what: (pickle, the name that it asks for)}"""

    def dumped(value, protocol=2):
        return pickle.dumps(value, protocol)[2:-1]

    return {
        "system": (dumped(Calls(os.system, f"touch {mark}")), "posix.system"),
        "eval": (dumped(Calls(eval, f"open({str(mark)!r}, 'w')")), "builtin"),
        "a newer protocol": (dumped(Calls(getattr, "a", "upper"), 4), "builtins.getattr"),
        "inside a state dict": (written.tree({"a": dumped(Calls(os.mkdir, str(mark)))}), "posix.mkdir"),
        "an instance": (b"(ios\nsystem\n", "os system"),
        "a module": (b"ctorch.nn.modules.linear\nLinear\n)\x81", "torch.nn.modules.linear.Linear"),
        "a name of torch's": (b"ctorch.serialization\nload\n", "torch.serialization.load"),
        "a dotted name": (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "_rebuild_tensor_v2.__globals__"),
        "an extension": (b"\x82\x01", "EXT1"),
    }


@pytest.mark.parametrize("what", harmful(""))
@pytest.mark.parametrize("layout", ["zip", "row"])
def test_what_means_harm(what, layout, tmp_path):
    """By an exception of its own kind, which names what was asked for; nothing of it is done."""
    mark = tmp_path / "mark"
    content, asked = harmful(mark)[what]
    if layout == "zip":
        written.archive(tmp_path / "a.pth", content)
    else:
        start = torch_files.OLD + b".\x80\x02M\xe9\x03." + pickle.dumps({"little_endian": True}, 2)
        (tmp_path / "a.pth").write_bytes(start + b"\x80\x02" + content + b"." + pickle.dumps([], 2))
    with pytest.raises(UnsafeCheckpoint) as error:
        read_state(tmp_path / "a.pth")
    assert asked in str(error.value) and "torch.save(model.state_dict(), FILE)" in str(error.value)
    assert "\n" not in str(error.value) and not mark.exists()


def shared_key():
    """A dict with a key that takes 2^60 steps to hash: each of its tuples holds the one before twice."""
    return b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s"


LARGE = {
    "elements": written.tree({"a": written.tensor(written.storage("0", 2**40), (2**40,), (1,))}),
    "a view of few": written.tree({"a": written.tensor(written.storage("0", 1), (2**20, 2**20), (0, 0))}),
    "beyond": written.tree({"a": written.tensor(written.storage("0", 1), (2, 8), (8, 1))}),
    "behind": written.tree({"a": written.tensor(written.storage("0", 1), (1,), (1,), 1)}),
    "negative": written.tree({"a": written.tensor(written.storage("0", 1), (1,), (1,), -1)}),
    "axes": written.tree({"a": written.tensor(written.storage("0", 1), (1,) * 40, (1,) * 40)}),
    "two sizes": written.tree(
        {
            "a": written.tensor(written.storage("0", 1), (1,), (1,)),
            "b": written.tensor(written.storage("0", 2**20), (2**20,), (1,)),
        }
    ),
    "a path": written.tree({"a": written.tensor(written.storage("../data.pkl", 1), (1,), (1,))}),
    "memo": b"}r\xff\xff\xff\x7f\x8a",
    "text": b"X\xff\xff\xff\xff",
    "bytes": b"\x8e" + b"\xff" * 8,
    "a number": b"\x8b\xff\xff\xff\x7f",
    "a key": shared_key(),
    "stack": b"u",
    "marks": b"t",
    "nothing": b"",
}


@pytest.mark.parametrize("what", LARGE)
def test_what_claims_too_much(what, tmp_path):
    """Refused in one line, at once, in little memory."""
    written.archive(tmp_path / "a.pth", LARGE[what], [b"\0\0\0\0"])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            read_state(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and str(tmp_path / "a.pth") in str(error.value)


@pytest.mark.parametrize("where", ["data.pkl", "data/0"])
def test_what_unfolds(where, tmp_path):
    """64 MB of zeros in 64 kB, as the pickle or as the numbers: read as far as was said."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        content = written.tree({"a": written.tensor(written.storage("0", 1), (1,), (1,))})
        file.writestr("archive/data.pkl", b"\0" * 2**26 if where == "data.pkl" else b"\x80\x02" + content + b".")
        file.writestr("archive/data/0", b"\0" * 2**26)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"{where} has more than"):
            read_state(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * torch_files.MAX_PICKLE
    finally:
        tracemalloc.stop()


def test_what_takes_any_memory_to_unfold(tmp_path):
    content = written.tree({"a": written.tensor(written.storage("0", 1), (1,), (1,))})
    written.archive(tmp_path / "a.pth", content, [b"\0\0\0\0"], zipfile.ZIP_LZMA)
    with pytest.raises(CheckpointError, match="compressed in a way"):
        read_state(tmp_path / "a.pth")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage(tmp_path_factory, data):
    """One byte changed, or the end cut off: numbers, or one line; never another error."""
    layout = data.draw(st.sampled_from(["zip", "row"]))
    content = bytearray((WRITTEN / f"{layout}.pth.tar").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path = tmp_path_factory.mktemp("damage") / "a.pth"
    path.write_bytes(content)
    try:
        read_state(path)
    except CheckpointError as error:
        assert "\n" not in str(error)
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("content", [b"", b"hello, world, this is no checkpoint", b"PK\x03\x04", b"\x80\x02}."])
def test_what_is_none(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_state(tmp_path / "a.pth")


def test_a_file_without_a_state_dict(tmp_path):
    """The message says what there is instead."""
    written.archive(tmp_path / "a.pth", written.tree({"epoch": written.number(3), "net": written.tree({})}))
    with pytest.raises(CheckpointError, match=r"holds no state dict \(epoch, net\)"):
        read_state(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as file:
        file.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match="a zip, but not one of torch.save"):
        read_state(tmp_path / "b.pth")


def test_numbers_are_not_read_before_they_are_wanted(tmp_path):
    """What an optimiser keeps, twice as much as the weights, is neither read nor counted."""
    big = written.tensor(written.storage("9", 2**39), (2**39,), (1,))
    state = written.tree({"a": written.tensor(written.storage("0", 1), (1,), (1,))})
    tree = b"}(" + written.text("state_dict") + state + written.text("optimizer") + written.tree({"b": big}) + b"u"
    written.archive(tmp_path / "a.pth", tree, [np.float32(2.5).tobytes()])
    np.testing.assert_array_equal(read_state(tmp_path / "a.pth")["a"], np.float32([2.5]))


def test_pickles_one_after_the_other():
    """As the older layout has them: each reading begins where the last ended."""
    file = io.BytesIO(pickle.dumps({"a": [1, (2, 3.5)], "b": None}, 2) + pickle.dumps("é", 2))
    assert torch_files.unpickled(Path("a"), file) == {"a": [1, (2, 3.5)], "b": None}
    assert torch_files.unpickled(Path("a"), file) == "é"
