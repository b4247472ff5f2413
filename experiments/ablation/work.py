"""The work of a study: its runs are trained, then measured, by this process or by several that share the variants."""

import argparse
import contextlib
import dataclasses
from concurrent import futures

from clic_jax import memory, processes, runtime
from clic_jax.training import data
from experiments.ablation import evaluation, training
from experiments.ablation.study import Study


def prepare() -> None:
    """What a process does before it computes."""
    runtime.use_cache()
    memory.keep_memory(everything=True)


def do(work: Study, photographs: training.Photographs | None, held_out: list, args, asked: list) -> dict | None:
    """Trains and measures a study: {variant: {seed: points}}, or None where `asked` has stopped it.

    photographs: to train on, where they are there already. held_out: uint8 [H, W, 3] each. args: the command line's.
    """
    if args.jobs > 1:
        with contextlib.suppress(Asked):
            return share_out(work, args, asked)
        return None
    photographs = photographs or training.Photographs(args.data, next(iter(work.configs.values())).train.crop)
    if not training.train_all(work, photographs, asked):
        return None
    evaluation.forget()
    return measure(work, photographs, held_out, args, asked)


class Asked(Exception):
    """Leaves the pool, which ends its processes."""


def share_out(work: Study, args, asked: list) -> dict:
    """What `do` returns, the variants shared out to `--jobs` processes. Raises: Asked, where `asked` has stopped it."""
    names, points = list(work.configs), {}
    parts = [{name: work.configs[name] for name in names[i :: args.jobs]} for i in range(min(args.jobs, len(names)))]
    with processes.pool(args.jobs) as executor:
        todo = {executor.submit(share, dataclasses.replace(work, configs=part), args) for part in parts}
        while todo:
            done, todo = futures.wait(todo, timeout=1)
            for future in done:
                points |= future.result()
            if asked:  # every run has the checkpoint of its last turn
                raise Asked
    return {name: points[name] for name in names}


def share(part: Study, args) -> dict:
    """`do` in one of several processes."""
    prepare()
    with runtime.usual_settings():
        held_out = [x for _, x in data.whole_images(args.valid)]
        return do(part, None, held_out, argparse.Namespace(**vars(args) | {"jobs": 1}), [])


def measure(work: Study, photographs: training.Photographs, held_out: list, args, asked: list) -> dict | None:
    """{variant: {seed: points}} of all runs that did not diverge; None where `asked` has stopped it."""
    points: dict[str, dict[int, dict]] = {name: {} for name in work.configs}
    for name, cfg in work.configs.items():
        for run in (run for run in work.runs() if run.variant == name and not run.diverged.exists()):
            if asked:
                return None
            training.say(f"measuring {name}, seed {run.seed}")
            points[name][run.seed] = evaluation.evaluate(
                run, cfg, held_out, list(args.qualities), photographs.crops, args.estimate
            )
        evaluation.forget()
    return points
