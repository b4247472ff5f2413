"""Rate and distortion of models and classical codecs on a folder of photographs, one JSON each in OUT.

    python -m experiments.rd_eval --data FOLDER --out DIR  # clic-compact-detail, and what Pillow alone can do
    python -m experiments.rd_eval --data FOLDER --model runs/mine/published --codecs "" --out DIR  # only ours
    python -m experiments.rd_eval --data FOLDER --codecs jpeg,jpegxl,hevc,vvc --jobs 4 --out DIR  # only theirs
    python -m experiments.rd_eval --data FOLDER --model clic-tiny --estimate --out DIR  # the model's bits, no files

A rate is the length of a real file, and distortion that of the 8-bit image it decodes to (`--estimate`: bits that the
float model counts, in NAME-estimate.json, which says so). Each image first, then the mean over images. --resume keeps
what an earlier run, even a killed one, has measured of the same images with the same codec, versions and model.
The codecs jpegxl, hevc and vvc need `pip install .[anchors]`, the metric ssimulacra2 `pip install .[report]`. Timings
mean little with --jobs above 1.
"""

import argparse
import concurrent.futures
import contextlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from clic_jax import memory, processes, runtime, runtimes
from clic_jax.checkpoints import installed
from clic_jax.coding import equal_quality
from clic_jax.errors import UserError
from clic_jax.training import data
from experiments import cli
from experiments.rd_eval import codecs, points, results

PILLOW_CODECS = ("jpeg", "webp", "avif", "jpeg2000")


class ArgumentsError(UserError):
    """Options that cannot go together."""


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.rd_eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=cli.expanded, metavar="FOLDER", help="a folder of photographs")
    parser.add_argument(
        "--model", nargs="+", type=cli.expanded, help="names of `clic-jax models`, or published folders"
    )
    parser.add_argument("--codecs", help=f"comma-separated, of {','.join(codecs.CODECS)}; empty: none")
    parser.add_argument(
        "--qualities",
        type=_quality,
        nargs="+",
        help="of each model (1 to 100) and codec (its own scale) instead of theirs",
    )
    text = "of models, that of the encoder, 0 to 9 as of `clic-jax compress` (NAME-effortN.json)"
    parser.add_argument("--effort", type=int, default=0, metavar="N", help=text)
    text = "of models, what `clic-jax compress --fallback` does (NAME-fallback-CODEC.json)"
    parser.add_argument("--fallback", choices=equal_quality.CHOICES, default=equal_quality.NONE, help=text)
    text = f"of models, what computes: {points.RUNTIME} as in the committed results, or another (NAME-RUNTIME.json)"
    parser.add_argument("--runtime", choices=runtimes.RUNTIMES, default=points.RUNTIME, help=text)
    text = f"comma-separated, of {','.join(points.METRICS)}; psnr,ms-ssim by default"
    parser.add_argument("--metric", type=_metrics, default="psnr,ms-ssim", help=text)
    parser.add_argument("--out", type=cli.path, required=True, metavar="DIR", help="folder for NAME.json")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes for the classical codecs")
    parser.add_argument("--resume", action="store_true", help="measure only what is not in --out already")
    parser.add_argument("--estimate", action="store_true", help="of models, bits that they count instead of files")
    args = parser.parse_args(argv)
    args.data = args.data.removeprefix("folder:")  # as for training
    if args.jobs < 1:
        parser.error("--jobs is at least 1")
    return args


def _quality(text: str) -> float:
    """A whole number where it is one, as results say it."""
    quality = float(text)
    return int(quality) if quality.is_integer() else quality


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    if not names or not set(names) <= set(points.METRICS):
        raise argparse.ArgumentTypeError(f"{text!r} is not one or more of {','.join(points.METRICS)}")
    return names


def chosen(args) -> tuple[list[str], list[str]]:
    """(models, classical codecs) that the options name, or leave to us. Raises: ArgumentsError."""
    names = None if args.codecs is None else list(filter(None, (part.strip() for part in args.codecs.split(","))))
    if args.estimate and names:
        raise ArgumentsError("--estimate is of models: leave --codecs out")
    if args.estimate and args.effort:
        raise ArgumentsError("--effort changes files, --estimate writes none: leave one of them out")
    if args.estimate and args.fallback != equal_quality.NONE:
        raise ArgumentsError("--fallback chooses among files, --estimate writes none: leave one of them out")
    if args.estimate and args.runtime != points.RUNTIME:
        raise ArgumentsError("--estimate computes with JAX: leave --runtime out")
    models = list(args.model or ())
    if args.model is None and not names:
        models = [installed.DEFAULT_MODEL]
    if names is None:
        names = [] if args.model or args.estimate else list(PILLOW_CODECS)
    return models, list(dict.fromkeys(names))


def subjects(models: list[str], names: list[str], args) -> tuple[list[points.Subject], int]:
    """What to measure, and how many codecs are not installed, each told in a line.

    Raises: UserError for a model or codec that does not exist, a quality that it does not have, or one name twice.
    """
    found, missing = [], 0
    for name in names:
        try:
            found.append(points.classical(name, args.qualities))
        except codecs.MissingCodec as error:
            missing += 1
            complain(error)
    how = {"effort": args.effort, "fallback": args.fallback, "runtime": args.runtime}
    found += [points.of_model(model, args.qualities, args.estimate, **how) for model in models]
    files = [results.file_name(subject) for subject in found]
    if twice := sorted({name for name in files if files.count(name) > 1}):
        raise ArgumentsError(f"two models would both be {twice[0]}.json: give them different folder names, or --out")
    return found, missing


def complain(error: Exception):
    """One line on standard error, above the progress bar."""
    tqdm.write(f"experiments.rd_eval: error: {' '.join(str(error).split())}", file=sys.stderr)


def read_all(folder: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Checksums of the pixels by the name of the image, so that a damaged one is found before hours have passed.

    Raises: DataError; ImageError. Says which images are too small for MS-SSIM.
    """
    checksums, small = {}, []
    for name, x in data.whole_images(f"folder:{folder}"):
        checksums[name] = f"{zlib.crc32(x.tobytes()):08x}"
        if "ms-ssim" in wanted and not points.large_enough(*x.shape[:2]):
            small.append(name)
    if small:
        others = f" and {len(small) - 1} more" if len(small) > 1 else ""
        print(
            f"experiments.rd_eval: warning: no mean MS-SSIM: {small[0]}{others} too small for its five scales",
            file=sys.stderr,
        )
    return checksums


def in_turn(subject: points.Subject, tasks: list[tuple[str, float]], args) -> Iterator[dict]:
    """The row of each (image, quality), measured in this process."""
    folder = Path(args.data)
    return (points.measure(subject, folder, name, quality, args.metric) for name, quality in tasks)


def in_parallel(pool: concurrent.futures.Executor) -> Callable:
    """As `in_turn`, in the processes of a pool; the rows come as they are ready."""

    def run(subject, tasks, args) -> Iterator[dict]:
        folder = Path(args.data)
        futures = [pool.submit(points.measure, subject, folder, *task, args.metric) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    return run


def evaluate(subject: points.Subject, checksums: dict[str, str], args, run: Callable) -> dict:
    """Measures what is not there yet, and writes the results; qualities that were measured before stay in them.

    Raises: CodecFailed, ImageError; what is measured by then is on disk.
    """
    about = results.identity(subject, args.data, checksums, args.metric)
    name = results.file_name(subject)
    rows = results.kept(args.out, name, about) if args.resume else {}
    complete = [quality for _, quality in rows if all((image, quality) in rows for image in checksums)]
    qualities = tuple(dict.fromkeys([*subject.qualities, *complete]))
    order = [(image, quality) for image in checksums for quality in qualities]
    tasks = [task for task in order if task not in rows]
    with results.journal(args.out, name, about, rows.values()) as add:
        for row in tqdm(run(subject, tasks, args), subject.codec, len(tasks), unit="point", disable=None):
            add(row)
            rows[row["name"], row["quality"]] = row
    return results.finish(args.out, name, about, qualities, [rows[task] for task in order], args.jobs)


def report(path: Path, result: dict):
    """The curve, as a table."""
    count = len(result["images"])
    print(f"{path}: {result['name']}, {count} image{'' if count == 1 else 's'}")
    columns = (result["results"][key] for key in ("bpp", *points.METRICS.values()))
    for quality, bpp, psnr, similarity, score in zip(result["quality"], *columns):
        numbers = [f"{bpp:.4f} bpp", "" if psnr is None else f"{psnr:.3f} dB"]
        numbers.append("" if similarity is None else f"MS-SSIM {similarity:.5f}")
        numbers.append("" if score is None else f"SSIMULACRA 2 {score:.2f}")
        print(f"  quality {quality:5g}  " + "  ".join(filter(None, numbers)))


def main(argv=None) -> int:
    """Runs the command line: 0, or 1 if a codec is not installed or refused an image and the others are measured."""
    args = parse(argv)
    models, names = chosen(args)
    points.check_metrics(args.metric)
    runtime.use_cache()
    memory.keep_memory()
    found, failed = subjects(models, names, args)
    if not found:
        return 2
    checksums = read_all(args.data, args.metric)
    args.out.mkdir(parents=True, exist_ok=True)
    with processes.pool(args.jobs) if args.jobs > 1 else contextlib.nullcontext() as pool:
        for subject in found:
            run = in_turn if subject.model_id or args.jobs == 1 else in_parallel(pool)
            try:
                result = evaluate(subject, checksums, args, run)
            except points.CodecFailed as error:
                failed += 1
                complain(error)
                continue
            report(args.out / f"{results.file_name(subject)}.json", result)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
