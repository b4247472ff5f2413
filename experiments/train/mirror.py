"""A run's folder, copied at each checkpoint to an address (gs://, s3://, what fsspec knows), and fetched from there.

Training writes to a disk, as always: orbax's array store speaks to two vendors' buckets, by a driver of its own, and
to what grows, the log and TensorBoard's events, no bucket lets one append. What is copied is told by a list, which is
written last, and what it named is deleted only then: a copy that was cut short is not there.
"""

import json
import os
from pathlib import Path

from clic_jax.bulk import places
from clic_jax.checkpoints import arrays
from clic_jax.config import ConfigError
from clic_jax.errors import UserError
from clic_jax.files import atomic

LIST = "mirror.json"  # {path within the folder: [bytes, time of change in ns]}


class Mirror:
    """The copy of a run's `folder` at `address`; it has one writer. A `with` copies the last state, if nothing fails.

    Raises: PlaceError where the address cannot be used.
    """

    def __init__(self, folder: Path, address: str):
        self._folder, self._address = folder, address.rstrip("/")
        self._there: dict[str, list[int]] = {}
        if places.exists(f"{self._address}/{LIST}"):
            self._there = json.loads(places.read(f"{self._address}/{LIST}"))

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            self.push()

    def fetch(self, resume: bool) -> None:
        """Brings the folder back where it holds no run, whole or not at all; to be called before anything is written.

        Raises: ConfigError where the address holds a run, and this one does not go on with it or is not as far.
        """
        if not self._there:
            return
        if not resume:
            raise ConfigError(
                f"{self._address} already holds a run: add --resume to continue it, or name another --mirror"
            )
        here = max(arrays.steps_in(self._folder), default=0)
        there = max((int(name.split("/")[0]) for name in self._there if name.split("/")[0].isdigit()), default=0)
        if here and here < there:
            raise ConfigError(
                f"{self._address} is at step {there} and {self._folder} at step {here}: name another --out to go on "
                f"from the former, or another --mirror to go on from the latter"
            )
        if here or not there:
            return
        if self._folder.exists() and any(self._folder.iterdir()):
            raise ConfigError(
                f"{self._folder} holds no checkpoint, and other things: name another --out to fetch the run"
            )
        with atomic.new_folder(self._folder) as folder, places.opened(self._address) as (files, root):
            for name, (_, changed) in self._there.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(f"{root}/{name}", str(target))
                os.utime(target, ns=(changed, changed))

    def push(self) -> None:
        """Copies what has changed, then says so, then deletes what is no more. Raises: PlaceError; OSError."""
        here = {}
        for path in sorted(self._folder.rglob("*")):
            if path.is_file():
                about = path.stat()
                here[path.relative_to(self._folder).as_posix()] = [about.st_size, about.st_mtime_ns]
        with places.opened(self._address) as (files, root):
            for name in (name for name, about in here.items() if self._there.get(name) != about):
                files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                files.put_file(str(self._folder / name), f"{root}/{name}")
            files.pipe_file(f"{root}/{LIST}", json.dumps(here).encode())
            gone, self._there = self._there.keys() - here.keys(), here
            for name in gone:
                files.rm_file(f"{root}/{name}")

    def try_push(self) -> str:
        """`push`, where what goes wrong may pass until the next time: what went wrong as a line, or ""."""
        try:
            self.push()
        except (UserError, OSError) as error:
            return f"{self._address} was not written, and is tried again at the next checkpoint: {error}"
        return ""
