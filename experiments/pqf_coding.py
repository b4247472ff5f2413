"""What the coefficients of GuidedPQF cost, and what they would cost under tables that are learned.

    python -m experiments.pqf_coding runs/ablation/full/0 --data folder:PHOTOS --valid folder:HELD_OUT --out FILE.json

A file codes them under one fixed table (`coding/coefficients.py`). Here tables are counted on crops of --data, one for
all, one for each slice of y, each quality, or both, and measured on --valid: bits a picture, and as a share of all of
its bits, which the model counts. Every coefficient is sent, as a model with the filter in its graph does.
"""

import argparse
import collections
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from clic_jax import memory, runtime
from clic_jax.checkpoints import published
from clic_jax.coding import coefficients
from clic_jax.config import ModelConfig
from clic_jax.errors import UserError
from clic_jax.files import atomic, images
from clic_jax.model.clic import CLIC
from clic_jax.quality import Quality
from clic_jax.training import data
from clic_jax.training.evaluation import STRIDE
from experiments import cli, machine

QUALITIES = (10.0, 40.0, 70.0, 100.0)
CROP, CROPS = 512, 64  # what tables are counted on
TRUST = 64  # counted symbols that the fixed table weighs as much as
TABLES = {  # by what a coefficient shares its table with others: (slice, quality) -> the table's name
    "one table": lambda k, quality: 0,
    "a slice": lambda k, quality: k,
    "a quality": lambda k, quality: quality,
    "a slice and quality": lambda k, quality: (k, quality),
}


class NoFilter(UserError):
    """A model without coefficients."""


@functools.partial(jax.jit, static_argnums=0)
def run(config: ModelConfig, params, x, lmbda):
    """(exact coefficients [B, C, A], bits of y and z [B]) of x uint8 [B, H, W, 3], whose sides are multiples of 64."""
    out = CLIC(config).apply({"params": params}, x.astype(jnp.float32) / 255, lmbda)
    return out.tensors["coefficients"], out.bits_y + out.bits_z


def symbols(config: ModelConfig, params, x: np.ndarray, lmbda: float) -> tuple[list[np.ndarray], float]:
    """(integers of the coefficients of each slice, flat, the picture's other bits) of x uint8 [H, W, 3]."""
    padded = images.pad_to_multiple(x, STRIDE)
    found, bits = run(config, params, padded[None], jnp.full((1,), lmbda))
    whole = np.clip(coefficients.rounded(found[0]), -coefficients.LARGEST, coefficients.LARGEST)
    ends = np.cumsum(config.groups)[: config.pqf_slices]
    return [part.ravel() for part in np.split(whole, ends[ends < len(whole)])], float(bits[0])


def counted(sets: list[np.ndarray]) -> np.ndarray:
    """Bits of each integer -16..16 under a table counted on flat arrays of them, the fixed one mixed in.

    Not by `coding.tables.measured_tables`, which gives both signs one frequency: maps may well have one that prevails.
    """
    fixed = 2.0 ** -coefficients.bits(np.arange(-coefficients.LARGEST, coefficients.LARGEST + 1))
    counts = np.bincount(np.concatenate(sets) + coefficients.LARGEST, minlength=len(fixed))
    return -np.log2((counts + TRUST * fixed / fixed.sum()) / (counts.sum() + TRUST))


def compare(learned_on: dict, measured_on: dict) -> dict[str, dict]:
    """{how the tables are shared: {quality: bits a picture}}, the fixed one first.

    Args: {quality: [[integers of each slice] of each picture]}, of the pictures that tables are counted on, and others.
    """

    def cost(table_of):
        return {
            quality: float(np.mean([sum(table_of(k, quality)[q].sum() for k, q in enumerate(p)) for p in pictures]))
            for quality, pictures in places.items()
        }

    first = coefficients.LARGEST  # integers from -16 on are places in a table
    places = {quality: [[q + first for q in p] for p in pictures] for quality, pictures in measured_on.items()}
    fixed = coefficients.bits(np.arange(-first, first + 1))
    found = {"fixed": cost(lambda k, quality: fixed)}
    for how, name_of in TABLES.items():
        sets = collections.defaultdict(list)
        for quality, pictures in learned_on.items():
            for k, part in itertools.chain.from_iterable(map(enumerate, pictures)):
                sets[name_of(k, quality)].append(part)
        tables = {name: counted(parts) for name, parts in sets.items()}
        found[how] = cost(lambda k, quality: tables[name_of(k, quality)])
    return found


def main(argv=None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.pqf_coding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=cli.expanded, help="a run's folder, a published one, or a name of `clic-jax models`")
    add("--data", default="sample", help="photographs that tables are counted on, as for experiments.train")
    add("--valid", default="sample:valid", help="pictures to measure on, the same kinds of names")
    add("--qualities", type=float, nargs="+", default=QUALITIES, help="1 to 100; default 10 40 70 100")
    add("--out", type=cli.path, metavar="FILE", help="JSON file for the figures")
    args = parser.parse_args(argv)
    runtime.use_cache()
    memory.keep_memory()
    with runtime.usual_settings():
        config, params, _ = published.load_published(args.model)
        if config.model.pqf not in ("joint", "auxiliary"):
            raise NoFilter(f"{args.model} sends no coefficients: its model.pqf is {config.model.pqf!r}")
        photos = data.load_photos(args.data, min_size=CROP)
        crops = list(np.asarray(data.random_crops(photos, jax.random.key(0), batch=CROPS, size=CROP)))
        held_out = [x for _, x in data.whole_images(args.valid)]
        sent: tuple[dict, dict] = {}, {}
        others = {}
        for quality in tqdm(args.qualities, unit="quality", disable=None):
            lmbda = Quality.of(quality).lmbda(config.model.lmbdas)
            for pictures, into in zip((crops, held_out), sent):
                found = [symbols(config.model, params, x, lmbda) for x in pictures]
                into[quality] = [q for q, _ in found]
                others[quality] = float(np.mean([bits for _, bits in found]))  # the second, held-out, stays
    rows = compare(*sent)
    print(f"{'bits a picture (share of all)':32s}" + "".join(f"{f'quality {q:g}':>18s}" for q in args.qualities))
    for how, row in rows.items():
        cells = (f"{row[q]:.0f} ({row[q] / (row[q] + others[q]):.2%})" for q in args.qualities)
        print(f"{how:32s}" + "".join(f"{cell:>18s}" for cell in cells))
    if args.out:
        count = sum(part.size for part in sent[1][args.qualities[0]][0])
        kept = {
            "machine": machine.describe(),
            "images": len(held_out),
            "coefficients": count,
            "bits": rows,
            "others": others,
        }
        atomic.write(args.out, (json.dumps(kept, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    cli.run(main)
