"""Seconds and memory of a picture in a new process: without JAX, with it, and AVIF in Pillow.

    python -m experiments.cold_start --image PHOTO.png --out OUT.json
    python -m experiments.cold_start --image PHOTO.png --python LIGHT/bin/python --out OUT.json    and a light install

Each command runs in turn, `--runs` times over, after one of each that does not count (it fills JAX's cache): medians
of wall-clock seconds, and the largest memory of a process. The picture is read, coded and written, or read back.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import cli, machine
from experiments.paths import ROOT

AVIF = """
import sys
from PIL import Image
image, target = Image.open(sys.argv[1]), sys.argv[2]
image.save(target, **(dict(quality=60, speed=6, subsampling="4:4:4") if target.endswith("avif") else {}))
"""


def commands(image: Path, folder: Path, pythons: list[str]) -> dict[str, list[str]]:
    """{name: command} of all that is timed, in the order in which each finds what it reads."""
    found = {}
    for python in [sys.executable, *pythons]:
        where = "" if python == sys.executable else f", {Path(python).parent.parent.name}"
        for runtime in ("onnx", "int8", "jax") if python == sys.executable else ("onnx",):
            run, coded = [python, "-m", "clic_jax"], folder / f"{runtime}.clic"
            option = ["--runtime", runtime]
            found[f"compress, {runtime}{where}"] = [*run, "compress", str(image), "-o", str(coded), *option]
            found[f"decompress, {runtime}{where}"] = [*run, "decompress", str(coded), "-o", f"{coded}.png", *option]
    avif = str(folder / "a.avif")
    found["encode, AVIF in Pillow"] = [sys.executable, "-c", AVIF, str(image), avif]
    found["decode, AVIF in Pillow"] = [sys.executable, "-c", AVIF, avif, str(folder / "a.png")]
    return found


def timed(name: str, command: list[str], cwd: str | None) -> tuple[float, float]:
    """(seconds, MiB at most) of one process. Raises: UserError with what it said if it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=cwd) as process:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{name} failed: {(said or 'without a word').strip().splitlines()[-1]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.cold_start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=cli.path, required=True, help="a photograph; 768x512 pixels in our tables")
    parser.add_argument("--python", action="append", default=[], help="an interpreter with another install; repeatable")
    parser.add_argument("--runs", type=int, default=5, help="of each command")
    parser.add_argument("--out", type=cli.path, required=True, help="the JSON file to write")
    args = parser.parse_args(argv)
    with Image.open(args.image) as image:
        size = image.size
    seconds, memory = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(args.image.absolute(), Path(folder), args.python)
        for run in tqdm(range(args.runs + 1), unit="round", disable=None):
            for name, command in todo.items():
                # this clone's code for this interpreter, what is installed for others
                found = timed(name, command, str(ROOT) if command[0] == sys.executable else folder)
                if run:
                    seconds.setdefault(name, []).append(found[0])
                    memory[name] = max(found[1], memory.get(name, 0))
    rows = {
        name: {
            "median_s": round(statistics.median(s), 3),
            "runs_s": [round(x, 3) for x in s],
            "mib": round(memory[name]),
        }
        for name, s in seconds.items()
    }
    about = {"image": args.image.name, "size": list(size), "machine": machine.describe(), "rows": rows}
    atomic.write(args.out, json.dumps(about, indent=1).encode())
    for name, row in rows.items():
        print(f"{name:32} {row['median_s']:7.3f} s  {row['mib']:5} MiB")
    return 0


if __name__ == "__main__":
    cli.run(main)
