"""Speed and memory: of training, of coding by part, and beside other codecs in the same run; one JSON.

    python -m experiments.benchmark --codec --train --preset tiny small --json OUT.json
    python -m experiments.benchmark --codec --sizes 64 256 512 1024 2048 4096 --image photo.png --json OUT.json
    python -m experiments.benchmark --train --preset paper --repetitions 2 --json OUT.json
    python -m experiments.benchmark --service --preset compact --threads 1 2 4 --json OUT.json
    python -m experiments.benchmark --peers --json OUT.json  # after `make peers`
    python -m experiments.benchmark --authors CHECKOUT --preset paper --batches 1 --json OUT.json  # the same
    python -m experiments.benchmark --before OLDER_CHECKOUT --preset compact --json OUT.json

Times are medians, with minimum and maximum, of warm repetitions; what compiles is reported apart. MFU is the
multiply-accumulates of the traced graph (`experiments.complexity`) over the time and over the rate of a large matrix
product on the same device in the same process. Each preset has a process of its own, for its peak memory. Presets
without published weights here run untrained: their time is the same. Keep the cores quiet meanwhile.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from clic_jax import config, processes, settings
from clic_jax.files import atomic, images
from clic_jax.training import sources
from experiments import cli, experiment, machine
from experiments.benchmark import before, coding, peers, service, training, worker

SIZES = (64, 128, 256, 512, 1024, 2048)
SAMPLE = "motorcycle_left.png"  # 741x500 pixels, continued at two sides by mirror images
SIZE = (512, 768)
QUICK = {"sizes": [64, 128], "batches": [1], "crop": 64, "repetitions": 2, "seconds": 0.0}


def parse(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--train", action="store_true", help="one training step: times and memory")
    add("--codec", action="store_true", help="encoding and decoding: whole, by part, by size, and in a new process")
    add("--peers", action="store_true", help="beside CompressAI's models and Pillow's AVIF and WebP, taking turns")
    text = "a checkout of the authors' code (1chizhang/CLIC), whose training step takes turns with ours"
    add("--authors", type=cli.path, metavar="CHECKOUT", help=text)
    text = "an older checkout of this repository, whose training step takes turns with today's"
    add("--before", type=cli.path, metavar="CHECKOUT", help=text)
    add("--service", action="store_true", help="pictures a second of one process with several threads, by runtime")
    add("--preset", nargs="+", default=["tiny"], metavar="NAME", help="presets or experiment files (.py); tiny")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the presets")
    add("--sizes", type=int, nargs="*", default=SIZES, help="sides of the square images coded; 64 ... 2048")
    add("--image", type=cli.expanded, help="the photograph coded; by default a sample, 768x512")
    add("--crop", type=int, default=256, help="side of the training crops")
    add("--batches", type=int, nargs="+", default=[1, 4], help="crops a training step; 1 and 4")
    add("--dtypes", nargs="+", default=["float32"], help="compute types of a training step; float32")
    add("--threads", type=int, nargs="+", default=None, help="of the peers, or of --service; 1 and all cores")
    add("--repetitions", type=int, default=10, help="at most, of anything")
    add("--seconds", type=float, default=5, help="after which something is repeated no more (but twice at least)")
    add("--quick", action="store_true", help="the smallest of everything, to see whether it runs")
    add("--machine", help="what the JSON calls this machine; by default cores, processor and memory")
    add("--json", type=cli.path, required=True, metavar="OUT", help="the file to write")
    args = parser.parse_args(argv)
    if not (args.train or args.codec or args.service or args.peers or args.authors or args.before):
        parser.error("nothing to do: give one or more of --train, --codec, --service, --peers, --authors, --before")
    if args.quick:
        args = argparse.Namespace(**vars(args) | QUICK | {"threads": args.threads or [1]})
    args.threads = args.threads or sorted({1, os.cpu_count() or 1})
    if args.crop % 64 or min([args.crop, *args.sizes, *args.batches, *args.threads, args.repetitions]) < 1:
        parser.error("--crop wants a multiple of 64; sizes, batches, threads and repetitions are 1 or more")
    return args


def conditions(name: str | None) -> dict:
    """The machine and its load, for the reader to judge how quiet it was."""
    load = os.getloadavg()[0]
    return {"machine": name or machine.describe(), "cores": machine.cores(), "load_before": load} | {
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def photograph(path: str | None) -> np.ndarray:
    """The image to be coded, uint8 [H, W, 3]. Raises: ImageError; DataError."""
    if path:
        return images.read_rgb(path)
    sample = next(p for p in sources.sample_photographs() if p.name == SAMPLE)
    return coding.mirrored(images.read_rgb(sample), *SIZE)


def isolated(function, *args, env=None):
    """function(*args) in a new process, whose memory is its own, with the variables `env` in its environment.

    Raises: UserError if the system kills it.
    """
    with processes.environment(env or {}), processes.pool(1, remedy="try fewer --batches") as pool:
        return pool.submit(function, *args).result()


def codec_part(cfg: config.Config, model: str, x: np.ndarray, args) -> dict:
    """What --codec says of one preset."""
    if not worker.writes_files(model):
        return {"preset": cfg.name, "unavailable": "models of this preset cannot write files yet"}
    limits = (args.repetitions, args.seconds)
    result, file = isolated(coding.measure, cfg, model, x, list(args.sizes), *limits)
    return result | {"cold": coding.cold(model, file, 1 if args.quick else 3)}


def training_part(cfg: config.Config, x: np.ndarray, args) -> list[dict]:
    """What --train says of one preset."""
    crops, rows = crops_of(x, max(args.batches), args.crop), []
    for dtype in args.dtypes:
        for batch in args.batches:
            with tempfile.TemporaryDirectory() as cache:
                env = {"JAX_COMPILATION_CACHE_DIR": cache}
                compiled = isolated(training.compiling, cfg, crops[:batch], dtype, env=env)
                limits = (args.repetitions, args.seconds)
                rows.append(isolated(training.running, cfg, crops[:batch], dtype, compiled, *limits, env=env))
    return rows


def service_part(cfg: config.Config, model: str, x: np.ndarray, args) -> list[dict]:
    """What --service says of one preset."""
    limits = (args.repetitions, args.seconds)
    rows = []
    for name in service.available(model) if worker.writes_files(model) else ():
        rows.append({"preset": cfg.name} | isolated(service.measure, model, x, name, args.threads, *limits))
    return rows


def peers_part(models: dict[str, str], x: np.ndarray, args) -> list[dict]:
    """What --peers, --authors and --before say."""
    cores = os.cpu_count() or 1
    todo = []
    for threads in args.threads:
        # the authors' code codes nothing here, so that alone there is nothing to compare
        todo += peers.cases(threads, args.batches if threads == cores else args.batches[:1], coding=args.peers)
    height, width = (max(n // 64 * 64, 64) for n in x.shape[:2])
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "x.npz"
        crops = crops_of(x, max(args.batches), args.crop)
        np.savez(arrays, image=coding.mirrored(x, height, width)[None], crops=crops)
        ours, theirs = peers.of_models(models), peers.others(args.peers, args.authors)
        if args.before:
            ours += before.processes(args.before, models, Path(folder))
        return peers.measure(ours, theirs, arrays, todo, args.repetitions, args.seconds)


def crops_of(x: np.ndarray, count: int, side: int) -> np.ndarray:
    """Crops of x, continued by its mirror images: uint8 [count, side, side, 3]."""
    long = coding.mirrored(x, side, side * count)
    return np.stack(np.split(long, count, axis=1))


def main(argv=None) -> int:
    """Runs the command line."""
    args = parse(argv)
    if args.peers or args.authors:
        peers.check(args.authors)
    if args.before:
        before.check(args.before)
    beside = args.peers or args.authors or args.before
    chosen = [experiment.named(name) for name in args.preset]
    chosen = [settings.override(cfg, args.set) for cfg in chosen]
    x = photograph(args.image)
    if args.quick:
        x = x[:64, :64]
    result = conditions(args.machine) | {"protocol": " ".join(__doc__.split("\n\n")[2].split())}
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        if args.codec or args.service or beside:
            models = {cfg.name: isolated(training.published_model, cfg, Path(folder) / cfg.name) for cfg in chosen}
        if args.train:
            result["train"] = [row for cfg in _bar(chosen, "training") for row in training_part(cfg, x, args)]
        if args.codec:
            result["codec"] = [codec_part(cfg, models[cfg.name], x, args) for cfg in _bar(chosen, "coding")]
        if args.service:
            rows = (service_part(cfg, models[cfg.name], x, args) for cfg in _bar(chosen, "serving"))
            result["service"] = [row for part in rows for row in part]
        if beside:
            result["peers"] = peers_part(models, x, args)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(args.json, json.dumps(result, indent=1).encode())
    print("\n".join([f"{args.json}: {result['machine']}", *_lines(result)]))
    return 0


def _bar(chosen, text: str):
    return tqdm(chosen, text, unit="preset", disable=None)


def _lines(result: dict):
    """The medians of a result, one a line."""
    for row in result.get("train", ()):
        what = f"train {row['preset']}, {row['batch']} x {row['crop']}x{row['crop']}, {row['dtype']}"
        if "skipped" in row:
            yield f"{what}: {row['skipped']}"
        else:
            compiled = f"compiled in {row['compiling']['compile_seconds']:.0f} s"
            median = row["seconds"]["median"]
            yield f"{what}: {median:.3f} s, MFU {row['mfu']:.0%}, {row['peak_rss_mib']:.0f} MiB, {compiled}"
    for row in result.get("codec", ()):
        for name in ("encode", "decode") if "bytes" in row else ():
            parts = {k: v["seconds"] for k, v in row["parts"][name].items() if k != "whole"}
            text = ", ".join(f"{k} {v:.3f}" for k, v in sorted(parts.items(), key=lambda item: -item[1])[:4])
            yield f"{name} {row['preset']}: {row[name]['seconds']['median']:.3f} s, MFU {row[name]['mfu']:.0%}; {text}"
    for found in result.get("service", ()):
        for row in found["rows"]:
            what = f"service {found['preset']}, {found['runtime']}, {row['threads']} threads"
            yield f"{what}: {row['encode']['median']:.2f} encoded a second, {row['decode']['median']:.2f} decoded"
    for row in result.get("peers", ()):
        what = f"{row['op']} {'' if row['batch'] is None else row['batch']}, {row['threads']} threads"
        first = f", the first call {row['first_seconds']:.1f} s" if "first_seconds" in row else ""
        yield f"{what}: {row['model']} {row['seconds']['median']:.3f} s, {row['peak_rss_mib']:.0f} MiB{first}"


if __name__ == "__main__":
    cli.run(main)
