"""The referee's side of `experiments.referee`: run by an environment that has tensorflow-compression, and no JAX.

    .venv-referee/bin/python experiments/referee/tfc.py exchange.npz answer.json

exchange.npz: `scales` [64]; `most`, bits of a symbol at most; the prior's `matrix0`, `bias0`, `factor0`, ...
as `FactorizedPrior` has them; for each case i, `z{i}` [n, N], `y{i}` [m] integers and `index{i}` [m] of the scale of
each y. The answer: bits of each z and y under TFC's own densities, and bytes of its range coder for each of PRECISIONS.
"""

import json
import platform
import sys
from importlib.metadata import version

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

PRECISIONS = {  # range_coder_precision and tail_mass of its entropy models
    "default": (12, 2.0**-8),
    "finest": (16, 2.0**-16),  # 16 bits are the most that its coder can do
}


def factorized_prior(given):
    """TFC's `NoisyDeepFactorized` with the weights given: it has the same parameters, to the shape of the biases."""
    layers = sum(name.startswith("matrix") for name in given.files)
    filters = [given[f"bias{i}"].shape[1] for i in range(layers - 1)]
    prior = tfc.NoisyDeepFactorized(batch_shape=(len(given["matrix0"]),), num_filters=filters)
    for i in range(layers):
        prior.base._matrices[i].assign(given[f"matrix{i}"])
        prior.base._biases[i].assign(given[f"bias{i}"][..., None])
        if i < layers - 1:
            prior.base._factors[i].assign(given[f"factor{i}"][..., None])
    return prior


def bits(density, values, most: float) -> tuple[float, float]:
    """(bits of all values under a density, the same if none took more than `most`), added up in double precision."""
    each = -density.log_prob(values).numpy().astype(np.float64) / np.log(2)
    return float(each.sum()), float(np.minimum(each, most).sum())


def main():
    """Runs the command line."""
    given = np.load(sys.argv[1])
    prior, scales = factorized_prior(given), tf.constant(given["scales"], tf.float32)
    cases = range(sum(name.startswith("index") for name in given.files))
    answer = {"bits_z": [], "bits_y": [], "bytes_z": {}, "bytes_y": {}}
    for i in cases:
        answer["bits_z"].append(bits(prior, tf.cast(given[f"z{i}"], tf.float32), given["most"]))
        density = tfc.NoisyNormal(loc=0.0, scale=tf.gather(scales, given[f"index{i}"]))
        answer["bits_y"].append(bits(density, tf.cast(given[f"y{i}"], tf.float32), given["most"]))
    for name, (precision, tail) in PRECISIONS.items():
        how = dict(compression=True, range_coder_precision=precision, tail_mass=tail)
        model_z = tfc.ContinuousBatchedEntropyModel(prior, coding_rank=2, offset_heuristic=False, **how)
        model_y = tfc.LocationScaleIndexedEntropyModel(
            tfc.NoisyNormal, len(scales), lambda i: tf.gather(scales, tf.cast(i, tf.int32)), coding_rank=1, **how
        )
        answer["bytes_z"][name], answer["bytes_y"][name] = [], []
        for i in cases:
            z, y, index = tf.cast(given[f"z{i}"], tf.float32), tf.cast(given[f"y{i}"], tf.float32), given[f"index{i}"]
            string_z, string_y = model_z.compress(z), model_y.compress(y, index)
            tf.debugging.assert_equal(model_z.decompress(string_z, z.shape[:1]), z)
            tf.debugging.assert_equal(model_y.decompress(string_y, index), y)
            answer["bytes_z"][name].append(len(string_z.numpy()))
            answer["bytes_y"][name].append(len(string_y.numpy()))
    answer["versions"] = {"tensorflow": tf.__version__, "numpy": np.__version__, "python": platform.python_version()}
    answer["versions"]["tensorflow-compression"] = version("tensorflow-compression")
    with open(sys.argv[2], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
