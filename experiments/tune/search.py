"""The search: optuna chooses params and gives hopeless trials up; what a trial is worth, an objective says.

Everything that decides is in the study's file, so that a search that was killed goes on where it was: its unfinished
trial first. Samplers are seeded by the trial's number: a search in two parts chooses as one in one go.
"""

import itertools
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from clic_jax.config import Config, ConfigError
from experiments.tune import space as spaces
from experiments.tune.space import Choice, Space, TuneError

SECONDS = "seconds"  # of the study so far, over all its processes
FINISHED, PRUNED, UNFINISHED = "finished", "given up", "unfinished"


class Progress(NamedTuple):
    """What an objective tells while it works on a trial."""

    share: float  # of the trial that is done
    step: int
    losses: list[float] | None = None  # of each seed, where `step` is a rung and all are there; infinite: diverged


# (config) -> what happens: rung after rung, the last one being the result
Objective = Callable[[Config], Iterator[Progress]]


class Row(NamedTuple):
    """A trial, as it is told."""

    number: int
    params: dict
    state: str  # FINISHED, PRUNED, UNFINISHED
    loss: float | None  # the median over seeds at the last step that it reached
    step: int
    losses: list[float]  # of each seed there
    why: str


def optuna():
    """The package. Raises: TuneError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna
    except ImportError:
        raise TuneError("tuning needs optuna, which is not installed: pip install '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(file: Path, space: Space, base: Config, count: int):
    """The study in a file, which is made, with its first trials waiting, where it is not there.

    The base comes first, where the space has it. A space with no more configs than `count` is gone through, in random
    order; in another the sampler chooses. Raises: TuneError for a file that is no study.
    """
    o = optuna()
    try:
        storage = o.storages.RDBStorage(f"sqlite:///{file.absolute()}")
        study = o.create_study(
            storage=storage, study_name="tune", load_if_exists=True, pruner=o.pruners.MedianPruner(n_startup_trials=2)
        )
    except Exception as error:  # sqlalchemy's, sqlite's or alembic's
        raise TuneError(f"{file} is no study that optuna can read ({str(error).splitlines()[0]}): name another --out")
    if not study.user_attrs.get("planned"):  # again after a kill within: what waits twice is skipped
        first = spaces.of_base(base, space)
        for params in ([first] if first else []) + (_all(space, first) if spaces.size(space) <= count else []):
            study.enqueue_trial(params, skip_if_exists=True)
        study.set_user_attr("planned", True)
    return study


def _all(space: Space, first: dict | None) -> list[dict]:
    everything = [dict(zip(space, values)) for values in itertools.product(*(axis.values for axis in space.values()))]
    random.Random(0).shuffle(everything)
    return [params for params in everything if params != first]


def search(
    study,
    space: Space,
    base: Config,
    count: int,
    objective: Objective,
    *,
    minutes: float = math.inf,
    say: Callable[[str], None] = print,
) -> None:
    """Makes trials until there are `count`, or the minutes of all the study's processes are over.

    One trial is finished in any case. What `objective` raises ends the search, and its trial stays unfinished.
    """
    o, begin, before = optuna(), time.monotonic(), study.user_attrs.get(SECONDS, 0.0)
    done_before, count = len(_told(study)), int(min(count, spaces.size(space)))

    def left() -> float:
        return 60 * minutes - before - (time.monotonic() - begin)

    while (trial := _unfinished(study, o)) or len(_told(study)) < count:
        if left() <= 0 and _best(study):
            break
        if trial is None:
            number = len(study.trials)
            study.sampler = o.samplers.TPESampler(seed=number, n_startup_trials=min(10, max(3, count // 3)))
            trial = study.ask()
        params = {key: _suggested(trial, key, axis) for key, axis in space.items()}
        state, rest = None, spaces.told(params)
        try:
            for progress in objective(spaces.applied(base, params)):
                study.set_user_attr(SECONDS, before + time.monotonic() - begin)
                new = len(_told(study)) - done_before + progress.share
                ends = (time.monotonic() - begin) / new * (count - done_before - new) if new else math.inf
                eta = min(ends, max(left(), 0))
                best = _best(study)
                known = f"best so far {best.value:.4f} (trial {best.number + 1})" if best else "none finished yet"
                where = f"trial {len(_told(study)) + 1} of {count}: {rest}; step {progress.step}"
                when = tqdm.format_interval(eta) if math.isfinite(eta) else "?"
                say(f"{where}{_losses(progress)}; {known}; ETA {when}")
                if progress.losses is None:
                    continue
                trial.set_user_attr("losses", progress.losses)
                trial.set_user_attr("step", progress.step)
                value = statistics.median(progress.losses)
                if not all(map(math.isfinite, progress.losses)):
                    state, why = o.trial.TrialState.PRUNED, "diverged"
                elif progress.share < 1:
                    if progress.step not in _frozen(study, trial).intermediate_values:  # of a trial that goes on
                        trial.report(value, progress.step)
                    if trial.should_prune():
                        state, why = o.trial.TrialState.PRUNED, "worse than the median of those before"
                if state is not None:
                    break
                if progress.share < 1 and left() <= 0 and _best(study):
                    return
        except ConfigError as error:  # values that contradict each other
            state, why = o.trial.TrialState.PRUNED, str(error)
        if state is not None:
            trial.set_user_attr("why", why)
            say(f"given up: {rest}: {why}")
            study.tell(trial, state=state)
        else:
            study.tell(trial, value)


def _losses(progress: Progress) -> str:
    return f", loss {statistics.median(progress.losses):.4f}" if progress.losses else ""


def _suggested(trial, key: str, axis):
    if isinstance(axis, Choice):
        return trial.suggest_categorical(key, axis.values)
    draw = trial.suggest_int if axis.whole else trial.suggest_float
    return draw(key, axis.low, axis.high, log=axis.log)


def _told(study) -> list:
    """The trials that are over."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _unfinished(study, o):
    """The trial that a killed process was at, to go on with, or None."""
    running = study.get_trials(deepcopy=False, states=(o.trial.TrialState.RUNNING,))
    return o.trial.Trial(study, running[0]._trial_id) if running else None


def _frozen(study, trial):
    return study.get_trials(deepcopy=False)[trial.number]


def _best(study):
    """The finished trial with the lowest loss, or None."""
    finished = [trial for trial in _told(study) if trial.value is not None and trial.state.name == "COMPLETE"]
    return min(finished, key=lambda trial: trial.value, default=None)


def rows(study) -> list[Row]:
    """Every trial that was begun: the finished ones first, the best before all."""
    states = {"COMPLETE": FINISHED, "PRUNED": PRUNED}
    found = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "WAITING":
            continue
        about, state = trial.user_attrs, states.get(trial.state.name, UNFINISHED)
        losses = about.get("losses", [])
        loss = statistics.median(losses) if losses else None
        found.append(Row(trial.number, trial.params, state, loss, about.get("step", 0), losses, about.get("why", "")))
    order = (FINISHED, PRUNED, UNFINISHED)
    return sorted(found, key=lambda row: (order.index(row.state), math.inf if row.loss is None else row.loss))
