"""Training checkpoints: the whole training state on disk, to resume from.

A training folder holds an orbax checkpoint for each kept step, with the config it was made under. It does not need the
device mesh of its writer to be read. The parameters alone, to code pictures with, are in
`clic_jax.checkpoints.published`.
"""

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clic_jax.checkpoints.arrays import (
    CheckpointError,
    explained,
    orbax,
    part_ids,
    read_about,
    read_state,
    stored_config,
)
from clic_jax.config import Config
from clic_jax.settings import to_json

# Settings of `train` that a resumed run must share, besides all of `model`: the first decides what opt_state holds, the
# others what the recorded loss measures, by which the best checkpoint is kept. The rest may change between two runs.
FIXED_TRAIN = ("optimizer", "metric", "lmbda_power")


class TrainingCheckpoints:
    """The checkpoints of one training run; one writer a folder. Use it in a `with`: leaving waits for pending writes.

    Args:
        folder: where the steps are kept, a subfolder each; made if absent. What a killed process left there is removed.
        config: of this run, stored with every step.
        keep_last: newest steps to keep, at least 1; the step with the lowest `loss` is kept as well.
    Raises: CheckpointError if the folder cannot be used, or holds a run whose config gives the state another meaning.
    """

    def __init__(self, folder: str | os.PathLike, config: Config, *, keep_last: int = 2):
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, not {keep_last}: a resumed run needs the last checkpoint")
        self._folder = Path(folder).absolute()  # orbax refuses relative paths
        self._config = config
        if stored := stored_config(self._folder):
            _require_same_config(self._folder, stored, config)
        ocp = orbax()
        policies = ocp.checkpoint_managers.preservation_policy

        def loss(metrics):
            return np.nan_to_num(metrics["loss"], nan=np.inf)  # a diverged model is never the best

        best = policies.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=loss,
            best_mode="min",
            cleanup_tmp_directories=True,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), best]),
        )
        with explained(f"cannot keep checkpoints in {folder}"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # what went wrong first is what the user must see
        finally:
            self._manager.close()

    def save(self, step: int, state: Any, metrics: dict[str, float] | None = None, force: bool = False) -> bool:
        """Starts to write `state`, in the background; its buffers may be donated as soon as this returns.

        Args:
            step: number of optimiser steps done. state: any pytree of arrays, on any devices.
            metrics: held-out results; the lowest `loss` (NaN is worst) is the best checkpoint; without any, never.
            force: replace the checkpoint of this step and remove all later ones, both before the new one is written.
        Returns: False, with nothing written, if this step is already there (and no `force`).
        Raises: CheckpointError if `step` is older than the newest checkpoint (and no `force`), or if this write or the
            one before it failed; the checkpoints before a failed write stay as they were.
        """
        self.wait()  # orbax would as well; here a failure of the previous write gets its own message
        later = [other for other in self._manager.all_steps() if other >= step]
        if step in later and not force:
            return False
        if later and not force:
            raise CheckpointError(f"step {step} is older than step {max(later)} in {self._folder}: use another folder")
        numbers = {name: float(value) for name, value in metrics.items()} if metrics else None
        args = orbax().args
        with explained(f"cannot write the checkpoint of step {step} to {self._folder}"):
            for other in later:
                self._manager.delete(other)
            about = args.JsonSave({"config": json.loads(to_json(self._config)), "ids": part_ids(state)})
            items = args.Composite(state=args.StandardSave(state), about=about)
            return self._manager.save(step, args=items, metrics=numbers, force=True)

    def wait(self):
        """Waits until the last save is on disk. Raises: CheckpointError if it failed."""
        with explained(f"cannot write a checkpoint to {self._folder}"):
            self._manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The newest step that is kept, or None."""
        return self._manager.latest_step()

    def best_step(self, since: int = 0) -> int | None:
        """The step with the lowest `loss` of those from `since` on, or None if no kept one came with a finite loss."""
        losses = {step: self.loss(step) for step in self._manager.all_steps() if step >= since}
        return min((step for step in losses if losses[step] < np.inf), key=losses.get, default=None)

    def loss(self, step: int) -> float:
        """What a kept step came with; infinite for none, or one that is not finite."""
        loss = self.measured(step).get("loss", np.inf)
        return loss if np.isfinite(loss) else np.inf

    def measured(self, step: int) -> dict[str, float]:
        """The metrics that a kept step came with; {} for none."""
        return self._manager.metrics(step) or {}

    def restore_newest(self, example: Any) -> Any:
        """As `restore` of the newest step that is not damaged; newer ones are told by a warning, and removed.

        Raises: CheckpointError if there is none.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        for i, step in enumerate(steps):
            try:
                state = self.restore(example, step)
            except CheckpointError as error:
                if step == steps[-1]:
                    raise
                warnings.warn(f"going on from step {steps[i + 1]}: {error}", stacklevel=2)
                continue
            for damaged in steps[:i]:
                self._manager.delete(damaged)
            return state
        return self.restore(example)

    def restore(self, example: Any, step: int | None = None) -> Any:
        """The state of `step` (None: the newest), bit for bit as saved, as a pytree like `example`.

        `example` holds arrays or `jax.ShapeDtypeStruct`s of the saved shapes and dtypes. Each leaf comes back on the
        sharding of its example, whatever devices wrote it; without one, on the local default device.
        Raises: CheckpointError if there is none, it is damaged, or its arrays are not those of `example`.
        """
        self.wait()
        step = self.latest_step() if step is None else step
        if step not in self._manager.all_steps():
            raise CheckpointError(f"no checkpoint of step {step} in {self._folder}: it has {self._manager.all_steps()}")
        path = self._folder / str(step)
        return read_state(path, read_about(path)[1], example)


def _require_same_config(folder: Path, old: Config, new: Config):
    """Raises CheckpointError naming the first setting by which a state saved under `old` means something else now."""
    fields = [("model", field.name) for field in dataclasses.fields(old.model)]
    for section, name in fields + [("train", name) for name in FIXED_TRAIN]:
        a, b = (getattr(getattr(config, section), name) for config in (old, new))
        if a != b:
            raise CheckpointError(
                f"{folder} holds a run with {section}.{name} = {a!r}, this one has {b!r}: "
                "give another --out, or drop --resume and start in an empty folder"
            )
