"""Do files decode alike everywhere? Every setting writes files, and every setting reads all of them.

    python -m experiments.portability --out experiments/results/portability.json
    python -m experiments.portability --python OLD/bin/python --python NEW/bin/python --out ...    other versions of jax
    python -m experiments.portability --platform cuda --out ...                                    and an accelerator
    python -m experiments.portability --settings default onnxruntime --out ...                     and without JAX

Each setting is a process of its own. A file passes where z_hat and y_hat are the writer's to the last bit; of the
pictures, which are float32 until they are rounded, the largest difference in grey levels is counted. As a control, the
same matrix is run with the float networks as they were trained in place of the integer ones: a file fails there once
a scale falls into another table, after which all that follows is garbage. The settings' own float results are compared
as well ("float_noise"), since a setting that changes none of them would prove nothing.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clic_jax.checkpoints.installed import DEFAULT_MODEL, folder_of
from clic_jax.errors import UserError
from clic_jax.files import atomic
from clic_jax.training.data import whole_images
from experiments import cli, machine
from experiments.paths import ROOT

SETTINGS = {  # environment variables, and of what else differs: processors to run on, pictures at a time
    "default": {},
    "one thread": {"processors": 1},
    "batch of 4": {"batch": 4},
    "no jit": {"JAX_DISABLE_JIT": "1"},
    "float64": {"JAX_ENABLE_X64": "1"},
    "old processor": {"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2"},
    "unoptimised": {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    "fast math": {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
    "other kernels": {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"},
}

ONNX = {  # of the runtime without JAX: chosen by name, for models that are exported
    "onnxruntime": {"runtime": "onnx"},
    "onnxruntime, one thread": {"runtime": "onnx", "processors": 1},
}


def matrix_settings(names, pythons=(), platforms=()) -> dict[str, dict]:
    """The chosen settings by name, those of other interpreters ("jax 0.10.0", ...) and of other platforms behind them.

    Raises: UserError for an interpreter that does not run, or has no jax.
    """
    chosen = {name: (SETTINGS | ONNX)[name] for name in names}
    chosen |= {f"jax {jax_version(python)}": {"python": python} for python in pythons}
    chosen |= {platform: {"JAX_PLATFORMS": platform} for platform in platforms}
    if not hasattr(os, "sched_setaffinity"):  # only Linux can be told
        chosen = {name: setting for name, setting in chosen.items() if "processors" not in setting}
    return chosen


def jax_version(python: str) -> str:
    """The version of jax that an interpreter has. Raises: UserError."""
    command = [python, "-c", "import jax; print(jax.__version__)"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"--python {python}: no interpreter that has jax: make one with venv and pip") from None


def run_worker(folder: Path, name: str, setting: dict, task: str):
    """Runs one process of the matrix and returns its result. Raises: UserError with what it said last if it fails."""
    variables = {key: value for key, value in setting.items() if key.isupper()}
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)} | variables
    command = [setting.get("python", sys.executable), "-m", "experiments.portability.worker", str(folder), name, task]

    run = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if "processors" in setting:  # long before JAX starts its threads there, which take this over
        os.sched_setaffinity(run.pid, sorted(os.sched_getaffinity(0))[: setting["processors"]])
    said = run.communicate()[1].strip()
    if run.returncode:
        last = (said or f"exit status {run.returncode}").splitlines()[-1]
        raise UserError(f"the setting {name!r} cannot {task} files: {last}")
    return json.loads((folder / f"{name}.{task}.json").read_text())


def run_matrix(folder: Path, settings: dict, model: str, photographs: dict, qualities) -> dict:
    """The whole matrix in an empty folder: what is known of each setting, and a summary of each kind of file."""
    job = {"settings": settings, "model": model, "qualities": list(qualities)}
    (folder / "job.json").write_text(json.dumps(job))
    np.savez(folder / "photographs.npz", **photographs)
    about, rows = {}, []
    with tqdm(total=2 * len(settings), unit="process", disable=None) as progress:
        for task in ("write", "read"):
            for name, setting in settings.items():
                found = run_worker(folder, name, setting, task)
                if task == "write":
                    noise = float_noise(folder, next(iter(settings)), name)
                    about[name] = {key: found[key] for key in ("python", "jax", "backend")} | {"float_noise": noise}
                else:
                    rows += [row | {"reader": name} for row in found]
                progress.update()
    for name, setting in settings.items():
        about[name] |= {key: value for key, value in setting.items() if key != "python"}
    return {"settings": about} | {kind: summary(rows, kind) for kind in ("integer", "float")}


def float_noise(folder: Path, first: str, name: str) -> dict[str, float]:
    """Largest difference of each float result of a setting from the first setting's, for the same input."""
    ours, theirs = (np.load(folder / f"{setting}.floats.npz") for setting in (name, first))
    return {key: float(f"{np.abs(ours[key] - theirs[key]).max():.3g}") for key in theirs if key in ours}


def summary(rows: list[dict], kind: str) -> dict:
    """Counts over all decodes of one kind; of the failures also by writer and reader."""
    rows = [row for row in rows if row["kind"] == kind]
    shown, failed = ([row for row in rows if bool(row["error"]) == wanted] for wanted in (False, True))
    across = [row for row in rows if row["writer"] != row["reader"]]
    by_pair = {}
    for row in failed:
        readers = by_pair.setdefault(row["writer"], collections.Counter())
        readers[row["reader"]] += 1
    return {
        "decodes": len(rows),
        "failed": len(failed),
        "failed_share_between_settings": sum(bool(row["error"]) for row in across) / max(len(across), 1),
        "files_that_fail_somewhere": len({row["file"] for row in failed}),
        "files": len({row["file"] for row in rows}),
        "errors": collections.Counter(row["error"] for row in failed),
        "latents_identical": sum(row["latents"] for row in rows),
        "pictures_identical": sum(not row["differ"] for row in shown),
        "largest_pixel_difference": max((row["largest"] for row in shown), default=0),
        "share_of_samples_that_differ": sum(x["differ"] for x in shown) / max(sum(x["samples"] for x in shown), 1),
        "failed_by_writer_and_reader": by_pair,
    }


def report(result: dict) -> str:
    """A few lines for the terminal."""
    lines = [f"{name:15} jax {s['jax']}  float noise {s['float_noise']}" for name, s in result["settings"].items()]
    for kind in ("integer", "float"):
        r = result[kind]
        lines.append(
            f"{kind}: {r['failed']} of {r['decodes']} decodes and {r['files_that_fail_somewhere']} of {r['files']} "
            f"pictures failed; latents identical in {r['latents_identical']}; largest pixel difference "
            f"{r['largest_pixel_difference']}, in {r['share_of_samples_that_differ']:.2g} of the samples"
        )
    return "\n".join(lines)


def main(argv=None) -> int:
    """Runs the command line; status 1 if any integer-coded file fails."""
    parser = argparse.ArgumentParser(
        prog="experiments.portability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=cli.path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--model", type=cli.expanded, default=DEFAULT_MODEL, help="a name of `clic-jax models`, or a published folder"
    )
    parser.add_argument("--data", default="sample", help="photographs, as for training: sample, folder:PATH, ...")
    parser.add_argument("--crop", type=int, nargs=2, default=(384, 512), metavar=("H", "W"), help="of their middles")
    parser.add_argument("--qualities", type=float, nargs="+", default=(20, 40, 60, 80, 100), help="1 to 100")
    parser.add_argument(
        "--settings", nargs="+", choices=[*SETTINGS, *ONNX], default=list(SETTINGS), help="by default all of JAX"
    )
    parser.add_argument("--python", action="append", default=[], help="an interpreter with another jax; repeatable")
    parser.add_argument("--platform", action="append", default=[], help="cuda or tpu: run there, too; repeatable")
    args = parser.parse_args(argv)
    settings = matrix_settings(args.settings, args.python, args.platform)
    photographs = {Path(name).stem: middle(x, *args.crop) for name, x in whole_images(args.data)}
    with tempfile.TemporaryDirectory() as folder:
        result = run_matrix(Path(folder), settings, args.model, photographs, args.qualities)
    about = {
        "model": Path(args.model).name,
        "model_id": model_id(args.model),
        "photographs": list(photographs),
        "crop": list(args.crop),
    }
    about |= {"qualities": list(args.qualities), "machine": machine.describe()}
    atomic.write(args.out, json.dumps(about | result, indent=1).encode())
    print(report(result))
    return 1 if result["integer"]["latents_identical"] < result["integer"]["decodes"] else 0


def model_id(model: str) -> str:
    """The id of a published model, from its folder."""
    return json.loads((folder_of(model) / "checkpoint.json").read_text())["model_id"]


def middle(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a photograph, or all of it where it is smaller."""
    top, left = (max(0, (have - want) // 2) for have, want in zip(x.shape, (height, width)))
    return x[top : top + height, left : left + width]


if __name__ == "__main__":
    cli.run(main)
