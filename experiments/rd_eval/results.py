"""Results of `experiments.rd_eval` on disk: rows while they are measured, then one JSON in the CompressAI schema.

NAME.part has one JSON a line: what is measured and how, then the rows so far. Each row is on disk when it is measured,
so that whatever ends the program costs the image in work and no more. NAME.json replaces it when all rows are there.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clic_jax import metrics
from clic_jax.files import atomic
from experiments import machine
from experiments.rd_eval.points import METRICS, Subject

MEANS = ("bpp", *METRICS.values(), "encoding_time", "decoding_time")  # over images, a list over qualities
PROTOCOL = (
    "bpp is 8 x bytes of the whole file / pixels of the image; PSNR (peak 255, the three channels together), MS-SSIM "
    "(as pytorch-msssim, in float64) and SSIMULACRA 2 (the package of that name) are of the decoded 8-bit RGB image; "
    "all of each image first, then the mean over images; ms-ssim-rgb-db is -10 log10(1 - mean); seconds are wall "
    "clock, without reading and compiling, {jobs} image{s} at a time, on a machine that may have had other work; "
    "null: not asked for, or undefined for some image"
)
ESTIMATE = "bpp is of the bits that the model estimates, NOT of files; the rest: "


def identity(subject: Subject, folder: str, checksums: dict[str, str], wanted: tuple[str, ...]) -> dict:
    """What a row depends on, apart from its image and quality; rows of another identity are never kept.

    checksums: of the pixels of each image, by name; a row is kept if that of its own image is the same.
    """
    return {
        "name": subject.name,
        "codec": subject.codec,
        "description": subject.description,
        "model_id": subject.model_id,
        "estimate": subject.estimate,
        "versions": subject.versions,
        "metric": list(wanted),
        "data": folder,
        "images": checksums,
    }


def file_name(subject: Subject) -> str:
    """NAME of its results."""
    return f"{subject.codec}-estimate" if subject.estimate else subject.codec


def kept(out: Path, name: str, about: dict) -> dict[tuple[str, float], dict]:
    """Rows by (image, quality) of an earlier run, finished or not, that measured the same thing on the same images."""
    rows = {}
    for before, found in (_read_finished(out / f"{name}.json"), _read_part(out / f"{name}.part")):
        same = all(before.get(key) == about[key] for key in about if key not in ("images", "data"))
        for row in found if same else ():
            image = row["name"]
            if image in about["images"] and before["images"].get(image) == about["images"][image]:
                rows[image, row["quality"]] = row
    return rows


@contextlib.contextmanager
def journal(out: Path, name: str, about: dict, rows: Iterator[dict]):
    """Starts NAME.part with those rows; the block gets a function that adds one."""
    path = out / f"{name}.part"
    start = [json.dumps(line) for line in (about, *rows)]
    atomic.write(path, ("\n".join(start) + "\n").encode())
    with open(path, "a") as file:

        def add(row: dict):
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield add


def finish(out: Path, name: str, about: dict, qualities, rows: list[dict], jobs: int) -> dict:
    """Writes NAME.json from all rows, removes NAME.part, and returns what is in the former."""
    protocol = (ESTIMATE if about["estimate"] else "") + PROTOCOL.format(jobs=jobs, s="" if jobs == 1 else "s")
    result = about | {
        "quality": list(qualities),
        "results": summary(rows, qualities),
        "protocol": protocol,
        "jobs": jobs,
        "machine": machine.describe(),
        "per_image": rows,
    }
    atomic.write(out / f"{name}.json", to_json(result))
    (out / f"{name}.part").unlink(missing_ok=True)
    return result


def summary(rows: list[dict], qualities) -> dict[str, list]:
    """Means over the images at each quality; None where an image has no value, as a mean without it is wrong."""
    points = [[row for row in rows if row["quality"] == quality] for quality in qualities]
    result = {key: [_mean([row.get(key) for row in point]) for point in points] for key in MEANS}
    similar = result[METRICS["ms-ssim"]]
    result["ms-ssim-rgb-db"] = [None if s is None or s >= 1 else float(metrics.ms_ssim_db(s)) for s in similar]
    return result


def _mean(values: list) -> float | None:
    return None if None in values else float(np.mean(values))


def to_json(result: dict) -> bytes:
    """One line a key, a curve and a row: short, and readable in a diff."""

    def block(value) -> str:
        if isinstance(value, dict):
            lines = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines = [json.dumps(item) for item in value]
        else:
            return json.dumps(value)
        return f"{json.dumps(value)[0]}\n  " + ",\n  ".join(lines) + f"\n {json.dumps(value)[-1]}"

    lines = [f"{json.dumps(key)}: {block(value)}" for key, value in result.items()]
    return ("{\n " + ",\n ".join(lines) + "\n}\n").encode()


def _read_finished(path: Path) -> tuple[dict, list]:
    try:
        before = json.loads(path.read_text())
        return (before, before["per_image"]) if "images" in before else ({}, [])
    except (OSError, ValueError, KeyError):
        return {}, []


def _read_part(path: Path) -> tuple[dict, list]:
    """Of a file that may end in the middle of a row."""
    try:
        about, *lines = path.read_text().split("\n")[:-1]
        return json.loads(about), [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return {}, []
