"""Keeps compiled programs on disk, so that the second run of a command does not compile again."""

import os
from pathlib import Path

import jax


def use_cache() -> Path:
    """Turns JAX's persistent compilation cache on, unless the user has chosen one, and returns its folder.

    The folder is $JAX_COMPILATION_CACHE_DIR, else clic_jax/xla in the user's cache folder ($XDG_CACHE_HOME or
    ~/.cache).
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.jax_compilation_cache_dir
    folder = Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clic_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # a decode has fifty small programs
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
