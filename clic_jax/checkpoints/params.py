"""The parameters of a published folder, read by tensorstore: orbax, which wrote them, takes half a second longer."""

from pathlib import Path

import numpy as np
from flax import traverse_util

from clic_jax.checkpoints import limits

WIDE = {np.dtype("float16"): np.dtype("float32")}  # what is stored narrow is read wide


def read(folder: Path) -> dict:
    """The tree of NumPy arrays in a folder that orbax wrote for `published.save_published`; float16 becomes float32.

    Raises: ValueError for what `limits.check_folder` refuses, and for arrays that cannot be read.
    """
    import tensorstore

    limits.check_folder(folder)
    paths = [
        tuple(level["key"] for level in entry["key_metadata"])
        for entry in limits.read_json(folder / "_METADATA")["tree_metadata"].values()
    ]
    store, context = {"driver": "ocdbt", "base": f"file://{folder}/"}, tensorstore.Context()
    opened = [
        tensorstore.open({"driver": "zarr", "kvstore": {**store, "path": ".".join(path) + "/"}}, context=context)
        for path in paths
    ]
    reads = [array.result().read() for array in opened]  # all are opened, then all are read, side by side
    arrays = [np.asarray(read.result()) for read in reads]
    return traverse_util.unflatten_dict({p: x.astype(WIDE.get(x.dtype, x.dtype)) for p, x in zip(paths, arrays)})
