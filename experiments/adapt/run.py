"""Adapts a model to one's pictures for some minutes, between two measurements on pictures that it never sees.

In DIR, besides what `experiments.poc` makes of every folder:

    adapt.json              what was adapted to what, and how long it took; by it a run knows its own folder
    split/                  links to the pictures of both halves; the middles of those that checkpoints are chosen by
    MODEL-adapted/          the training run, to be gone on with, and in `published` the new weights
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import jax

from clic_jax.errors import UserError
from clic_jax.exchange import publish as publishing
from clic_jax.files import atomic
from clic_jax.runtimes import FOLDER as LIGHT
from experiments import experiment, machine, publish
from experiments.adapt import halves
from experiments.rd_eval import __main__ as rd_eval
from experiments.rd_eval import points
from experiments.train import __main__ as train
from experiments.train import run_log

STATE = "adapt.json"
SCHEDULE = {"steps": 10**6, "schedule": "hold", "cooldown": 0.0, "warmup": 20}  # the time left does the rest: --anneal
# a third of the rate that training from scratch takes; an average over what is left of few steps; both halves of an
# hour, and of a minute, are looked at some times
FINE_TUNING = {"optimizer": "adam", "learning_rate": 3e-4, "ema": 0.98, "log_every": 25, "save_every": 100}
EVALUATED = 100  # steps between evaluations
CROPS = (128, 64)  # sides of a crop: the largest that fits
BATCH = 4
FEWEST_PIXELS = 2**20  # to measure the integers on; more where there are more to learn from, as of any run


class AdaptError(UserError):
    """A folder that is not ours to write to, or a run that cannot go on; one line."""


def minutes(text: str) -> float:
    """The argument of --adapt. Raises: ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number of minutes above 0, such as 10, not {text!r}")
    return number


def adapt(args, pictures: dict[str, halves.Picture], model_id: str) -> tuple[int, Path, Path]:
    """Measures, trains, publishes: (exit status, the folder of the judging half, the published folder).

    Args: args: of `experiments.poc`. pictures: of `halves.look`. model_id: of the model that is adapted.
    Raises: AdaptError; FolderError; and as `experiments.rd_eval`, `experiments.train` and `experiments.publish`.
    """
    parts = halves.divide(args.folder, pictures)
    if experiment.of_weights(args.model).train.metric != "mse":
        raise AdaptError(f"{args.model} is made for MS-SSIM, and before and after are judged by PSNR: adapt another")
    name = points.model_name(args.model)
    about = {
        "model": name,
        "model_id": model_id,
        "minutes": args.adapt,
        "halves": {part: {n: pictures[n].checksum[:16] for n in names} for part, names in parts._asdict().items()},
    }
    state = claim(args.out, args.folder, about)
    told = ", ".join(f"{len(names)} to {verb}" for names, verb in zip(parts, ("learn from", "choose by", "judge by")))
    say(f"{len(pictures)} pictures: {told}")
    folders = halves.lay_out(args.folder, parts, args.out / "split")
    measure = ["--data", str(folders["test"]), "--out", str(args.out / "results"), "--resume"]
    status = rd_eval.main([*measure, "--model", args.model, "--codecs", args.codecs])
    run = args.out / f"{name}-adapted"
    new = run / "published"
    if status > 1:
        return status, folders["test"], new
    if "steps" not in state:
        trained = learn(args, parts, pictures, folders, run, state)
        if trained:
            say("stopped; the same command goes on")
            return trained, folders["test"], new
    return status, folders["test"], new


def claim(out: Path, folder: Path, about: dict) -> dict:
    """Makes `out` ours, or finds that it is; returns what is known of the run so far.

    Raises: AdaptError where `out` has anything else in it, is of another model, time or pictures, or lies among the
      pictures, which would then be measured with them.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise AdaptError(f"{out} lies in {folder}, among your pictures: name an --out elsewhere")
    path = out / STATE
    try:
        state = json.loads(path.read_text())
        if not isinstance(state, dict) or not about.keys() <= state.keys():
            raise ValueError
    except FileNotFoundError:
        if out.exists() and any(out.iterdir()):
            raise AdaptError(f"{out} is there and holds no adaptation of ours: name another --out") from None
        state = about | {"spent_seconds": 0.0, "machine": machine.describe()}
        out.mkdir(parents=True, exist_ok=True)
        keep(out, state)
    except (ValueError, NotADirectoryError):
        raise AdaptError(f"{path} is not as we write it: name another --out") from None
    words = {"model": "model", "model_id": "model", "minutes": "number of minutes", "halves": "set of pictures"}
    for key, word in words.items():
        if state[key] != about[key]:
            raise AdaptError(f"{out} holds an adaptation with another {word}: name another --out")
    return state


def learn(args, parts: halves.Halves, pictures, folders: dict[str, Path], run: Path, state: dict) -> int:
    """Trains for the minutes that are left, publishes, exports; tells `state`, on disk. Returns the exit status."""
    begin, before = time.monotonic(), max(state["spent_seconds"], trained(run).get("seconds", 0.0))
    left = 60 * args.adapt - trained(run).get("seconds", 0.0)
    options = ["--data", f"folder:{folders['train']}", "--valid", f"folder:{folders['valid']}", "--resume", "--anneal"]
    options += ["--init", args.model, "--out", str(run), "--train-seconds", f"{max(left, 1e-3):g}"]
    learnt = [pictures[name] for name in parts.train]
    measured = max(FEWEST_PIXELS, sum(picture.height * picture.width for picture in learnt))
    options += ["--publish-pixels", str(min(measured, publishing.CALIBRATION_PIXELS))]
    for name, value in settings(learnt).items():
        options += ["--set", f"train.{name}={value}"]
    try:
        if not (run / "published").exists() and (status := train.main(options)):
            return status
        publish.add_light(run / "published")
    finally:
        state["spent_seconds"] = before + time.monotonic() - begin
        keep(args.out, state)
    row = trained(run)
    state |= {"steps": row["step"], "train_seconds": row["seconds"], "weights_bytes": weight(run / "published")}
    keep(args.out, state)
    return 0


def settings(learnt: list[halves.Picture]) -> dict:
    """Settings of `train` by name, for the pictures that are learnt from."""
    sides = [min(picture[:2]) for picture in learnt]
    crop = next((side for side in CROPS if min(sides) >= side), CROPS[-1])
    batch = -(-BATCH // jax.device_count()) * jax.device_count()
    return SCHEDULE | FINE_TUNING | {"eval_every": EVALUATED, "crop": crop, "batch": batch, "accumulate": 1}


def trained(run: Path) -> dict:
    """The last row of a run's log; {} where there is none."""
    return run_log.last_row(run / "metrics.jsonl") or {}


def weight(folder: Path) -> int:
    """Bytes that a decoder fetches of a published folder: the exported networks where there are some, else all."""
    light = [folder / LIGHT, folder / "config.json", folder / "coding.json", folder / "checkpoint.json"]
    return sum(size(path) for path in light) if light[0].exists() else size(folder)


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def keep(out: Path, state: dict) -> None:
    """Writes the state."""
    atomic.write(out / STATE, (json.dumps(state, indent=1) + "\n").encode())


def say(text: str) -> None:
    """A line on standard error."""
    print(f"experiments.poc: {text}", file=sys.stderr, flush=True)
