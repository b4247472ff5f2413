"""Photographs that do not fit in memory, read while training: random crops in an order that a resumed run continues.

The sets and the crops are those of `clic_jax.training.data`; `is_large` says by the headers whether a set is to be
streamed.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator

import numpy as np

from clic_jax.files import images
from clic_jax.training.sources import DataError, nothing_found, open_source


def is_large(spec: str, limit_mib: float = 1500) -> bool:
    """Whether the photographs of `spec` take more than `limit_mib` MiB decoded, by their headers: then stream them.

    Raises: DataError if the set does not exist.
    """
    source, room = open_source(spec), limit_mib * 2**20
    for index in range(source.count):
        with contextlib.suppress(images.ImageError):
            room -= 3 * math.prod(source.size(index))
        if room < 0:
            return True
    return False


def stream_crops(
    spec: str,
    *,
    batch: int,
    size: int,
    seed: int,
    start_step: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[np.ndarray]:
    """Random crops without end, read while training: uint8 [batch // process_count, size, size, 3] at a time.

    Every epoch visits each photograph once, in a new order. A batch is a function of (seed, step) only: starting at
    `start_step` continues an interrupted run exactly, and the crops of all processes at one step are, one after the
    other, those that a single process would have had. An image that is damaged or smaller than a crop is replaced by
    the next good one of the set, with a warning that names it (one in each worker). `batch` counts the crops of all
    processes; `workers` processes read (a script then needs its `__main__` guard), or with 0 threads of this one.
    Raises: DataError at once if the set is missing or empty or `batch` cannot be shared out, later if no image is good.
    """
    import grain
    from absl import flags

    if batch < 1 or batch % process_count:
        raise DataError(f"a batch of {batch} cannot be shared out among {process_count} processes evenly")
    source = open_source(spec)
    if not source.count:
        raise nothing_found(source, size)
    skipped: dict[int, int] = {}  # index of a bad image: position that met it first; saves decoding it again

    def crop_at(position: int, index: int) -> np.ndarray:
        rng = np.random.default_rng((seed, position))
        candidates = ((index + further) % source.count for further in range(source.count))
        for candidate in (i for i in candidates if i not in skipped):
            try:
                source.size(candidate, size)  # the header first, which spares a small image the decoding
                photo = source.read(candidate)
            except images.ImageError as error:
                if skipped.setdefault(candidate, position) == position:  # atomic: of several threads one warns
                    warnings.warn(f"{source.where}: skipped {error}", stacklevel=2)
                continue
            row, column = (rng.integers(side - size + 1) for side in photo.shape[:2])
            crop = photo[row : row + size, column : column + size]
            return crop[:, ::-1] if rng.integers(2) else crop
        raise nothing_found(source, size, ", all too small or unreadable")

    crops = grain.MapDataset.range(source.count).shuffle(seed=seed).repeat().map_with_index(crop_at)
    batches = crops.batch(batch // process_count)[process_index::process_count][start_step:]
    threads = max(1, (os.cpu_count() or 1) // max(1, workers))
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags, which only absl's own app.run would parse
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(stream)
