"""tensorflow-compression as the referee of our probability models and of our coder, on the same tensors.

    make referee                                                                  its environment, once
    python -m experiments.referee --out experiments/results/referee.json

Photographs are coded with a published model; the integers that went into their streams, and as many synthetic ones that
follow the tables exactly, are handed over with the weights of the prior and the scale table. Both sides then say:

    bits    of z under the factorized prior and of y under the Gaussian bins (TFC: NoisyDeepFactorized, NoisyNormal).
            Ours count 29.9 bits at most for a symbol, theirs more ("unbounded"); they are compared with the same bound
    bytes   of the coder's output. Both build integer tables from the same densities: ours have 24 bits, theirs 12 by
            default and 16 at most ("finest"). Coarse tables cost more where symbols follow the density, and less where
            they do not: no tail is thinner than 2^-12 or 2^-16 there. The synthetic case compares the coders alone.
            "as in files" is y under the tables that the model's own files are coded with

The two cannot share an environment (numpy 1 and 2), so the referee is a process: `experiments/referee/tfc.py`.
"""

import argparse
import copy
import json
import platform
import subprocess
import tempfile
import types
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from clic_jax import runtime
from clic_jax.checkpoints import published
from clic_jax.checkpoints.installed import DEFAULT_MODEL
from clic_jax.coding import codec, range_coder, stored, tables
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.model import entropy
from clic_jax.quality import Quality
from clic_jax.scales import SCALE_LEVELS, SCALE_TABLE
from clic_jax.training.data import whole_images
from experiments import cli, machine
from experiments.portability.__main__ import ROOT, middle

QUALITIES = (20, 80)
SYNTHETIC = 300_000  # symbols of y; of z, as many vectors as a photograph has


def coded_symbols(ready: codec.Codec, x: np.ndarray, quality: float) -> dict[str, np.ndarray]:
    """z [n, N], y [m], index [m] and slice [m] as they went into the stream of one photograph."""
    calls = []

    class Recorder(range_coder.Encoder):
        def encode(self, symbols, index, tables):
            calls.append((np.array(symbols), np.array(index), len(tables)))
            super().encode(symbols, index, tables)

    listening = copy.copy(ready)
    listening.coder = types.SimpleNamespace(Encoder=Recorder, bits=range_coder.bits)
    listening.encode(x, Quality.of(quality))
    (z, _, channels), *rest = calls
    halves = [call for call in rest if call[2] == SCALE_LEVELS]  # the filter's coefficients have a table of theirs
    y, index = (np.concatenate([call[part] for call in halves]) for part in (0, 1))
    slices = np.concatenate([np.full(len(call[0]), i // 2, np.int32) for i, call in enumerate(halves)])
    return {"z": z.reshape(-1, channels), "y": y, "index": index.astype(np.int32), "slice": slices}


def synthetic_symbols(prior: list[tables.Table], vectors: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The same from random numbers: z drawn from its tables, y from rounded Gaussians of all scales alike."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, SCALE_LEVELS, SYNTHETIC).astype(np.int32)
    y = np.round(rng.normal(size=SYNTHETIC) * SCALE_TABLE[index]).astype(np.int32)
    draws = [rng.choice(t.freq.size - 1, vectors, p=t.freq[:-1] / t.freq[:-1].sum()) + t.first for t in prior]
    return {"z": np.stack(draws, -1).astype(np.int32), "y": y, "index": index, "slice": np.zeros_like(index)}


def our_answer(case: dict, params, prior: list[tables.Table], own: list) -> dict[str, float]:
    """Bits under the float models and bytes of the coder, of z and y of one case.

    "file" is y under the model's `own` tables, by slice.
    """
    z, y, index = case["z"], case["y"], case["index"]
    values = np.float32(z)
    _, logits = entropy.FactorizedPrior().apply({"params": params}, values)
    bits_z = entropy.bits(entropy.logit_likelihood(logits, values))
    bits_y = entropy.y_bits("gaussian", np.float32(y), 0.0, np.float32(SCALE_TABLE)[index])
    answer = {f"bits_{name}": float(np.asarray(v, np.float64).sum()) for name, v in {"z": bits_z, "y": bits_y}.items()}
    channels = np.tile(np.arange(z.shape[1]), len(z))
    calls = {"z": (z.ravel(), channels, prior), "y": (y, index, tables.y_tables("gaussian"))}
    calls["file"] = y, index + SCALE_LEVELS * case["slice"], [table for part in own for table in part]
    for name, call in calls.items():
        encoder = range_coder.Encoder()
        encoder.encode(*call)
        answer[f"bytes_{name}"] = len(encoder.finish())
    return answer


def ask(python: Path, cases: list[dict], params) -> dict:
    """The referee's answer (`experiments/referee/tfc.py`). Raises: UserError if its process fails."""
    arrays = {f"{name}{i}": value for i, case in enumerate(cases) for name, value in case.items()}
    with tempfile.TemporaryDirectory() as folder:
        exchange, answer = Path(folder) / "exchange.npz", Path(folder) / "answer.json"
        most = -np.log2(entropy.LIKELIHOOD_MIN)
        np.savez(
            exchange,
            scales=SCALE_TABLE,
            most=most,
            **{name: np.asarray(v) for name, v in params.items()},
            **arrays,
        )
        command = [python, ROOT / "experiments" / "referee" / "tfc.py", exchange, answer]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise UserError(f"the referee failed: {run.stderr.strip().splitlines()[-1]}")
        return json.loads(answer.read_text())


def verdict(names: list[str], ours: list[dict], theirs: dict) -> dict:
    """Both sides' numbers for each case, and what they come to; the last case is the synthetic one."""
    rows, difference = [], {}
    for i, (name, our) in enumerate(zip(names, ours, strict=True)):
        row = {"case": name}
        for part in ("z", "y"):
            unbounded, bounded = theirs[f"bits_{part}"][i]
            bits = {"ours": our[f"bits_{part}"], "theirs": bounded, "theirs unbounded": unbounded}
            coded = {how: found[i] for how, found in theirs[f"bytes_{part}"].items()}
            row[part] = {"bits": {key: round(value, 1) for key, value in bits.items()}}
            in_file = our["bytes_file" if part == "y" else "bytes_z"]
            row[part]["bytes"] = {"ours": our[f"bytes_{part}"], "ours as in files": in_file} | coded
            difference[part] = max(difference.get(part, 0.0), abs(bits["ours"] / bounded - 1))
        rows.append(row)
    *photographs, synthetic = rows
    return {
        "largest_difference_of_bits": {part: float(f"{value:.2g}") for part, value in difference.items()},
        "bytes_of_photographs": total(photographs),
        "bytes_of_synthetic": total([synthetic]),
        "cases": rows,
    }


def total(rows: list[dict]) -> dict[str, int]:
    """Bytes of z and y of all rows, by coder."""
    return {how: sum(row[part]["bytes"][how] for row in rows for part in "zy") for how in rows[0]["y"]["bytes"]}


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.referee", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=cli.path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--model", type=cli.expanded, default=DEFAULT_MODEL, help="a name of `clic-jax models`, or a published folder"
    )
    parser.add_argument("--data", default="sample", help="photographs, as for training: sample, folder:PATH, ...")
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 384), metavar=("H", "W"), help="of their middles")
    parser.add_argument(
        "--python",
        type=cli.path,
        default=ROOT / ".venv-referee" / "bin" / "python",
        help="of the referee's environment",
    )
    args = parser.parse_args(argv)
    if not args.python.exists():
        raise UserError(f"{args.python} is not there: `make referee` makes the referee's environment (Python 3.11)")
    runtime.use_cache()
    ready = codec.Codec(*published.load_published(args.model), data := published.load_coding(args.model))
    prior, params = stored.stored_tables(data), ready.params["prior"]
    cases = {
        f"{Path(name).stem}, quality {quality}": coded_symbols(ready, middle(x, *args.crop), quality)
        for name, x in whole_images(args.data)
        for quality in QUALITIES
    }
    cases["synthetic"] = synthetic_symbols(prior, len(next(iter(cases.values()))["z"]))
    theirs = ask(args.python, list(cases.values()), params)
    own = stored.slice_tables(ready.config.model, data)
    found = verdict(list(cases), [our_answer(case, params, prior, own) for case in cases.values()], theirs)
    ours = {"jax": jax.__version__, "numpy": np.__version__, "constriction": version("constriction")}
    about = {
        "model": Path(args.model).name,
        "model_id": ready.model_id,
        "crop": list(args.crop),
        "machine": machine.describe(),
    }
    about |= {"versions": {"ours": ours | {"python": platform.python_version()}, "theirs": theirs["versions"]}}
    atomic.write(args.out, json.dumps(about | found, indent=1).encode())
    print(json.dumps({key: value for key, value in found.items() if key != "cases"}, indent=1))
    return 0


if __name__ == "__main__":
    cli.run(main)
