"""Environments that are not as usual: no home, no device, strict settings, a damaged cache, a fork."""

import os
import pwd
import signal
import zlib

import jax
import numpy as np
import pytest

from clic_jax import api, runtime
from tests.conftest import photograph

X = photograph(64, 64)


@pytest.fixture
def cache_of_its_own():
    """Whatever a test sets up, the cache is as before afterwards."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_no_home(monkeypatch, cache_of_its_own):
    def no_entry(_):
        raise KeyError

    jax.config.update("jax_compilation_cache_dir", None)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert runtime.use_cache() is None and jax.config.jax_compilation_cache_dir is None


def test_a_cache_that_cannot_be(monkeypatch, cache_of_its_own, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "xla"))
    assert runtime.use_cache() == tmp_path / "file" / "xla"


def test_damaged_programs_are_forgotten(monkeypatch, cache_of_its_own, tmp_path):
    """Once, at the next start; JAX would neither use nor replace them."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    good = zlib.compress(np.random.default_rng(0).bytes(5000))
    contents = {
        "a-cache": good,
        "b-cache": good[:3000],
        "c-cache": b"",
        "d-atime": b"",
        "e-cache": good[:-9] + b"?" * 9,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    runtime.use_cache()
    assert sorted(os.listdir(tmp_path)) == ["a-cache", "d-atime", "looked_at"]
    os.utime(tmp_path / "a-cache", (0, 0))
    read = []
    monkeypatch.setattr(zlib, "decompress", lambda content: read.append(content) or b"x")
    runtime.use_cache()
    assert not read  # what was there at the last look


def test_no_device(monkeypatch, published_micro):
    """The weights are not to blame."""

    def none_there(*_):
        raise RuntimeError("Unable to initialize backend 'cuda' (set JAX_PLATFORMS='')")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", none_there)
    api.open_model.__globals__["_open"].cache_clear()
    with pytest.raises(runtime.NoDevice, match="JAX_PLATFORMS=cuda: Unable to initialize backend 'cuda'; unset"):
        api.compress(X, model=published_micro)


def test_strict_settings(published_micro):
    data = api.compress(X, model=published_micro)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.transfer_guard("disallow"):
        api.open_model.__globals__["_open"].cache_clear()
        assert api.compress(X, model=published_micro) == data
        assert api.decompress(data, model=published_micro).shape == X.shape


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are for POSIX")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_fork(published_micro):
    """It says so, where it would wait for threads that it lacks."""
    data = api.compress(X, model=published_micro)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(20)
            api.decompress(data, model=published_micro)
        except runtime.ForkedProcess:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
