"""A training run over several processes, on one machine or many: how they find each other, and when they stop."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from clic_jax.config import ConfigError


def join(where: str) -> None:
    """Joins the other processes of the run; to be called before JAX's first use.

    Args: where: "HOST:PORT,COUNT,INDEX", the address that process 0 listens at, how many there are, and which this one
      is; or "" where JAX finds that out by itself (Slurm, Open MPI, Kubernetes, TPU pods).
    Raises: ConfigError.
    """
    try:
        address, count, index = where.split(",") if where else (None, 1, 0)
        given = dict(coordinator_address=address, num_processes=int(count), process_id=int(index)) if where else {}
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"--distributed wants HOST:PORT,COUNT,INDEX here, not {where!r}: {error}") from error


def largest(value: int) -> int:
    """The largest of all processes' values, which must all call this; a lone process does not wait for anything."""
    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(value)).max())
