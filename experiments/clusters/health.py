"""How a model's pictures are spread over its cluster centres: whether heads still choose, a stage each.

Measured at one operating point, the middle of `lmbdas`: g_a's clusters are those of any, g_s's nearly so.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clic_jax.checkpoints import installed
from clic_jax.config import ModelConfig
from clic_jax.files import images
from clic_jax.training import evaluation
from experiments.paths import RESULTS

PREFIX, PICTURES = "clusters_", "clusters_pictures"
REFERENCES = RESULTS / "clusters"  # of `experiments.clusters --out`, a file a model
SIDE, SOME = 576, 24  # pixels and pictures of a folder that are looked at
COLLAPSE = 2.0  # docs/adapting.md has the figures that it is chosen by
DEAD = 0.01  # of the positions: a centre with a smaller share is dead in this picture


class Health(NamedTuple):
    """Of a stage: means over its blocks and heads, and over pictures where there are several."""

    entropy: (
        float  # of the centres' shares of the positions, over log(centres): 0 is one cluster for all, 1 even shares
    )
    largest: float  # share of the largest cluster
    dead: float  # share of heads (of heads and pictures) that have a dead centre


def of_assignments(found: dict[str, np.ndarray], centers: int) -> dict[str, Health]:
    """{"g_a/stage2": Health, ...} of what `evaluation.assignments` gives for one picture.

    Both branches of a checkerboard block count, over all positions, as both cluster them all. One centre leaves no
    choice to measure: {}.
    """
    heads: dict[str, list[np.ndarray]] = {}
    for name, best in found.items() if centers > 1 else ():
        shares = [np.bincount(head.ravel(), minlength=centers) / head.size for head in np.asarray(best)]
        heads.setdefault("/".join(name.split("/")[:2]), []).extend(shares)
    return {stage: _health(np.stack(shares)) for stage, shares in sorted(heads.items())}


def _health(shares: np.ndarray) -> Health:
    """Of shares [heads, centres], whose rows sum to 1."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(1) / math.log(shares.shape[1])
    return Health(*(float(np.mean(value)) for value in (entropy, shares.max(1), shares.min(1) < DEAD)))


def measure(config: ModelConfig, params, photographs: Iterable[np.ndarray]) -> list[dict[str, Health]]:
    """`of_assignments` of each photograph uint8 [H, W, 3]; [{}, ...] for a model without clusters."""
    lmbda = config.lmbdas[len(config.lmbdas) // 2]
    found = (evaluation.assignments(config, params, x, lmbda) for x in photographs)
    return [of_assignments(picture, config.centers) for picture in found]


def middle(x: np.ndarray) -> np.ndarray:
    """The middle of a picture [H, W, 3], SIDE pixels at most: large ones take memory and minutes."""
    top, left = (max(side - SIDE, 0) // 2 for side in x.shape[:2])
    return x[top : top + SIDE, left : left + SIDE]


def some(folder: Path) -> Iterator[np.ndarray]:
    """The pictures of a folder, uint8 [H, W, 3]; of more than SOME, so many at even distances in their order."""
    paths = images.list_images(folder)
    chosen = np.linspace(0, len(paths) - 1, min(SOME, len(paths))).round().astype(int)
    return (images.read_rgb(paths[i]) for i in chosen)


def mean(pictures: list[dict[str, Health]]) -> dict[str, Health]:
    """The mean over pictures, a stage each."""
    stages = pictures[0] if pictures else {}
    return {stage: Health(*np.mean([picture[stage] for picture in pictures], 0).tolist()) for stage in stages}


def summary(pictures: list[dict[str, Health]]) -> dict[str, float]:
    """What a log and a published metrics.json have of them: {"clusters_entropy_g_a_stage2": ..., ...}; {} for none.

    Means over the pictures, the standard deviation of their entropies as "clusters_spread_...", and their number,
    "clusters_pictures".
    """
    means = mean(pictures)
    found = {}
    for stage, values in means.items():
        entropies = [picture[stage].entropy for picture in pictures]
        spread = float(np.std(entropies, ddof=1)) if len(entropies) > 1 else 0.0
        found |= {_key(name, stage): value for name, value in (values._asdict() | {"spread": spread}).items()}
    return found | {PICTURES: float(len(pictures))} if found else {}


def _key(name: str, stage: str) -> str:
    return f"{PREFIX}{name}_{stage.replace('/', '_')}"


def lines(found: dict[str, Health]) -> list[str]:
    """A sentence a stage."""
    return [
        f"{stage}: entropy {h.entropy:.2f} of 1, largest cluster {h.largest:.0%} of the positions, "
        f"dead centres in {h.dead:.0%} of the heads"
        for stage, h in found.items()
    ]


def reference(model: str, model_id: str) -> dict[str, float]:
    """`summary` of a model's held-out photographs; {} where nobody measured it.

    Of the shipped models it is in experiments/results/clusters, of others in the metrics.json that training wrote.
    """
    for path in (REFERENCES / f"{model_id}.json", Path(installed.folder_of(model)) / "metrics.json"):
        try:
            kept = json.loads(path.read_text())
            found = {name: float(v) for name, v in kept.get("clusters", kept).items() if name.startswith(PREFIX)}
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # for the reader, and nothing rests on it
        if found:
            return found
    return {}


def collapsed(pictures: list[dict[str, Health]], usual: dict[str, float]) -> dict[str, tuple[float, float]]:
    """{stage: (mean entropy of the pictures, of the photographs)} where it is lower than chance would have it.

    That is by COLLAPSE standard deviations of such a difference, the pictures' spread taken to be the photographs'.
    Args: usual: `reference`; stages that it does not have are not judged.
    """
    found = {}
    for stage, now in mean(pictures).items():
        entropy, spread = (usual.get(_key(name, stage)) for name in ("entropy", "spread"))
        if entropy is None or spread is None or usual.get(PICTURES, 0) < 2:
            continue
        noise = spread * math.sqrt(1 / len(pictures) + 1 / usual[PICTURES])
        if entropy - now.entropy > COLLAPSE * noise:
            found[stage] = (now.entropy, entropy)
    return found
