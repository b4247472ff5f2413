"""`make fuzz`: mutated files, pictures and published folders for as long as one likes.

    python -m tests.fuzz --minutes 60 --out fuzz     what is found goes to fuzz/SEED
    python -m tests.fuzz --again fuzz/SEED           runs one of them once more

A child with limits of memory and time does the work, and tells the seed of each input before it is read; where the
child breaks, hangs or is killed, the parent keeps the seed and the input, and starts another. No input may do anything
but be read, or raise a `UserError` of one line; peak memory is looked at after each.
"""

import argparse
import collections
import io
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

MEMORY = 2**30  # bytes by which one input may raise the peak of a child
ADDRESSES = 2**34  # bytes that a child may reserve, which with JAX is far more than it uses
SECONDS = 120  # for one input; most take a few milliseconds, compiling for a new size a few seconds
MAX_PIXELS = 128 * 128  # of what is decoded
KINDS = ("file", "file", "file", "picture", "folder")  # of inputs; the weights of each
GOLDEN = Path(__file__).parent.parent / "golden" / "44ee9ce2"  # of clic-tiny


def child(first: int, work: Path):
    """Inputs from the seed `first` on, without end; a line of JSON before and after each."""
    import numpy as np

    from clic_jax import api, runtime
    from tests.conftest import photograph

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    warnings.simplefilter("ignore")
    runtime.use_cache()
    originals = [path.read_bytes() for path in sorted(GOLDEN.glob("*.clic"))]
    for name in ("webp", "avif"):
        pixels = np.repeat(np.repeat(photograph(8, 8, 1), 8, 0), 8, 1)
        originals.append(api.compress(pixels, model="clic-tiny", quality=90, fallback=name))
    for seed in range(first, first + 2**40):
        print(json.dumps({"seed": seed}), flush=True)
        kind = kind_of(seed)
        forget_peak()
        before, begin = resident("VmHWM"), time.monotonic()
        error = None
        try:
            found = INPUTS[kind](originals, random.Random(seed), work)
        except BaseException as caught:  # whatever it is: it is a finding
            found, error = type(caught).__name__, traceback.format_exc()
        grown, seconds = resident("VmHWM") - before, time.monotonic() - begin
        if grown > MEMORY and error is None:
            error = f"{grown / 2**20:.0f} MiB more than before"
        line = {"seed": seed, "kind": kind, "found": found, "error": error, "grown": grown, "seconds": seconds}
        print(json.dumps(line), flush=True)
        if error:
            return  # the parent keeps what is in `work`
        if grown > MEMORY // 4:
            runtime.release_memory(programs=True)


def kind_of(seed: int) -> str:
    """What the input of that seed is, and the name of the file or folder in which a child leaves it."""
    return random.Random(f"kind {seed}").choice(KINDS)


def read_file(originals, rng, work: Path) -> str:
    """One mutated .clic file, through `info`, Pillow and the decoder."""
    from PIL import Image

    import clic_jax.pillow
    from clic_jax import api
    from clic_jax.files.container import peek
    from tests.fuzz.files import mutant

    _, data, _ = mutant([(data, None) for data in originals], rng)
    (work / "file").write_bytes(data)
    outcome(lambda: peek(data))
    outcome(lambda: clic_jax.pillow.ClicImageFile(io.BytesIO(data)))
    return outcome(lambda: Image.Image.verify(api.decompress_image(data, max_pixels=MAX_PIXELS)))


def read_picture(originals, rng, work: Path) -> str:
    """One picture whose EXIF data or profile lie, or with damage, as `compress` reads it."""
    from clic_jax.files import pictures
    from tests.fuzz.files import lying_picture

    kind, data = lying_picture(rng)
    (work / "picture").write_bytes(data)
    return f"{kind} {outcome(lambda: pictures.read(io.BytesIO(data), MAX_PIXELS))}"


def read_folder(originals, rng, work: Path) -> str:
    """One mutated published folder, opened as `--model` does."""
    from clic_jax.checkpoints.installed import WEIGHTS
    from tests.fuzz import folders

    folders.mutate(WEIGHTS / "clic-tiny", work / "folder", rng)
    return f"folder {folders.opened(work / 'folder')}"


INPUTS = {"file": read_file, "picture": read_picture, "folder": read_folder}


def outcome(read) -> str:
    """ "read", or the name of the `UserError` of one line."""
    from clic_jax.errors import UserError

    try:
        read()
        return "read"
    except UserError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2000
        return type(error).__name__


def resident(key: str) -> int:
    """Bytes of memory of this process now ("VmRSS") or at most since `forget_peak` ("VmHWM"), from Linux."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{key}:") + 1]) * 1024


def forget_peak():
    """Lets the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def parent(minutes: float, out: Path, first: int, last: float = float("inf")) -> int:
    """Children until the time, or the seed `last`, is over. Returns how many findings there are, each kept in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    end, seed, findings, count = time.monotonic() + 60 * minutes, first, 0, collections.Counter()
    slowest = largest = 0
    while time.monotonic() < end and seed <= last:
        with tempfile.TemporaryDirectory() as folder, open(out / "stderr.txt", "wb") as errors:
            command = [sys.executable, "-m", "tests.fuzz", "--child", str(seed), "--out", folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
            while time.monotonic() < end and seed <= last:
                begun, row = answer(process, 10 * SECONDS if seed == first else 3 * SECONDS), None
                if begun is not None:
                    seed, row = begun["seed"], answer(process, SECONDS)
                if row is None or row["error"]:
                    findings += 1
                    process.kill()
                    process.wait()
                    row = row or {"found": "killed", "error": f"killed, or longer than {SECONDS} seconds"}
                    keep(out / str(seed), Path(folder) / kind_of(seed), row, out / "stderr.txt")
                    print(f"seed {seed}: {row['error'].strip().splitlines()[-1][:200]}", flush=True)
                count[row["found"]] += 1
                slowest, largest = max(slowest, row.get("seconds", 0)), max(largest, row.get("grown", 0))
                seed += 1
                if row.get("error"):
                    break
            process.kill()
            process.wait()
    about = {"inputs": sum(count.values()), "findings": findings, "outcomes": dict(count.most_common())}
    about |= {"slowest_seconds": round(slowest, 1), "largest_growth_mib": round(largest / 2**20), "next_seed": seed}
    (out / "summary.json").write_text(json.dumps(about, indent=1))
    print(json.dumps(about, indent=1))
    return findings


def answer(process, seconds: float) -> dict | None:
    """The next line of a child; None if it ends, or says nothing for so long."""
    import select

    if not select.select([process.stdout], [], [], seconds)[0]:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.startswith(b"{") else None


def keep(folder: Path, found: Path, row: dict, errors: Path):
    """Puts an input, and what is known of it, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{row['error']}\n{errors.read_text(errors='replace')[-4000:]}"
    (folder / "error.txt").write_text(text)
    if found.is_dir():
        shutil.copytree(found, folder / found.name, symlinks=True, dirs_exist_ok=True, ignore=pipes)
    elif found.exists():
        shutil.copy(found, folder / found.name)


def pipes(folder: str, names: list[str]) -> list[str]:
    """Those of `names` that cannot be copied."""
    return [name for name in names if (Path(folder) / name).is_fifo()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="60 by default")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="where findings go; fuzz by default")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--again", type=Path, metavar="FINDING", help="run one finding of --out again")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.child, args.out)
    elif args.again:
        raise SystemExit(min(parent(10, args.again / "again", seed := int(args.again.name), seed), 1))
    raise SystemExit(min(parent(args.minutes, args.out, args.seed), 1))


if __name__ == "__main__":
    main()
