"""What a search ends with: the config that it recommends, as a file for --config, and a table of its trials."""

import dataclasses
import json
import math
from pathlib import Path

from clic_jax.config import PRESETS, Config
from clic_jax.files import atomic
from experiments.ablation import tables
from experiments.tune import search, space
from experiments.tune.search import Row

RECOMMENDED, TABLE, FIGURES = "recommended.py", "tune.md", "tune.json"


def difference(ours: Row, theirs: Row) -> tuple[float, float] | None:
    """(percent of the loss that ours has more, half the 95 % interval of that), seed by seed; None for one trial."""
    if ours.number == theirs.number:
        return None
    logs = [a - b for a, b in zip(ours.losses, theirs.losses, strict=True)]
    mean, half = tables.interval(logs)
    return 100 * math.expm1(mean), 100 * half


def against(ours: Row, theirs: Row, name: str) -> str:
    """`difference` in a sentence."""
    mean, half = difference(ours, theirs)
    if not math.isfinite(half):
        return f"Against {name}: {tables.NOT_RESOLVED}, one seed ({mean:+.2f} % of the loss)."
    told = f"{mean:+.2f} % of the loss, ±{half:.2f} over {len(ours.losses)} seeds"
    return f"Against {name}: {told if abs(mean) > half else f'{tables.NOT_RESOLVED} ({told})'}."


def verdict(rows: list[Row], base: Config, axes: space.Space) -> list[str]:
    """The best trial against the config that the search began with and against the next best, in sentences."""
    finished = [row for row in rows if row.state == search.FINISHED]
    best, first = finished[0], space.of_base(base, axes)
    lines = [f"Best: {space.told(best.params)}, held-out loss {best.loss:.4f} (mean log) after {best.step} steps."]
    begun = next((row for row in rows if first is not None and row.params == first), None)
    if begun is None:
        lines.append("The config that the search began with is not in the space, so that nothing is said against it.")
    elif begun.number == best.number:
        lines.append("It is the config that the search began with.")
    elif begun.state == search.FINISHED:
        lines.append(against(best, begun, "the config that the search began with"))
    else:
        lines.append(f"The config that the search began with was {begun.state}{begun.why and ': '}{begun.why}.")
    others = [row for row in finished[1:] if begun is None or row.number != begun.number]
    if others:
        lines.append(against(best, others[0], f"the next best ({space.told(others[0].params)})"))
    return lines


def table(rows: list[Row]) -> list[str]:
    """Every trial in Markdown."""
    found = ["| trial | settings | | steps | held-out loss, median | of each seed |", "|--:|---|---|--:|--:|---|"]
    for row in rows:
        loss = "" if row.loss is None else f"{row.loss:.4f}"
        each, state = ", ".join(f"{value:.4f}" for value in row.losses), row.state + (row.why and f": {row.why}")
        found.append(f"| {row.number + 1} | {space.told(row.params)} | {state} | {row.step} | {loss} | {each} |")
    return found


def config_file(cfg: Config, lines: list[str]) -> str:
    """The text of a file whose get_config() is cfg: the preset that is nearest to it, and what differs.

    Args: lines: what its docstring tells.
    """
    counts = {name: sum(map(len, _differences(preset, cfg))) for name, preset in PRESETS.items()}
    name = min(counts, key=counts.get)
    told = "\n".join(line.replace("\\", "/").replace('"', "'") for line in lines)
    code = []
    for section, changes in zip(("model", "train"), _differences(PRESETS[name], cfg)):
        inside = "".join(f"        {field}={value!r},\n" for field, value in changes.items())
        inside = f"\n{inside}    " if inside else ""
        code.append(f"    {section} = dataclasses.replace(base.{section}{',' if inside else ''}{inside})\n")
    return (
        f'"""What `experiments.tune` recommends.\n\n{told}\n"""\n\n'
        "import dataclasses\n\nfrom clic_jax.config import Config, preset\n\n\n"
        'def get_config() -> Config:\n    """The preset with what was chosen."""\n'
        f"    base = preset({name!r})\n{''.join(code)}"
        f"    return dataclasses.replace(base, name={cfg.name!r}, model=model, train=train)\n"
    )


def _differences(base: Config, cfg: Config) -> list[dict]:
    """The fields of model and train by which cfg differs."""
    found = []
    for section in ("model", "train"):
        before, after = (getattr(config, section) for config in (base, cfg))
        names = [field.name for field in dataclasses.fields(before)]
        found.append({name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)})
    return found


def _finite(row: Row) -> dict:
    """A row as JSON has it, which knows no infinity: None."""
    finite = [loss if math.isfinite(loss) else None for loss in row.losses]
    loss = None if row.loss is None or not math.isfinite(row.loss) else row.loss
    return row._asdict() | {"loss": loss, "losses": finite}


def write(out: Path, rows: list[Row], base: Config, axes: space.Space, about: dict) -> list[str]:
    """Writes the recommended config, the table and the figures; returns the lines of the verdict.

    Args: rows: of `search.rows`, one finished at least.
    """
    lines = verdict(rows, base, axes)
    cfg = space.applied(base, rows[0].params)
    cfg = dataclasses.replace(cfg, name=f"{base.name}-tuned")
    atomic.write(out / RECOMMENDED, config_file(cfg, lines).encode())
    atomic.write(out / TABLE, ("\n".join([*lines, "", *table(rows)]) + "\n").encode())
    kept = {"study": about, "verdict": lines, "trials": [_finite(row) for row in rows]}
    atomic.write(out / FIGURES, (json.dumps(kept, indent=1) + "\n").encode())
    return lines
