"""The page of `experiments.web` for its tests: built once a file, where Node and onnxruntime-web are to be had."""

import base64
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from experiments.paths import ROOT
from experiments.web import __main__ as command
from experiments.web import engine

HARNESS = Path(__file__).parent / "web_node.mjs"


def built(folder: Path, names: list[str]) -> Path:
    """The page with these models, as this clone's sources make it. Skips where `make web` was not run."""
    vendored = ROOT / "site" / engine.FOLDER
    if not all((vendored / name).is_file() for name in engine.SHA256):
        pytest.skip(f"needs {engine.PACKAGE}: make web")
    site = folder / "site"
    shutil.copytree(vendored, site / engine.FOLDER)
    (site / command.MODELS).parent.mkdir()
    (site / command.MODELS).write_text("{}")
    command.build(names, site)
    return site


class Node:
    """A process of Node that does the tasks of `web_node.mjs`. Skips where Node is missing or too old."""

    def __init__(self, site: Path):
        said = (
            subprocess.run(["node", "--version"], capture_output=True, text=True).stdout if shutil.which("node") else ""
        )
        if not said or int(said.removeprefix("v").split(".")[0]) < 18:
            pytest.skip("needs Node.js 18 or newer")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(["node", str(HARNESS), str(site)], **pipes)

    def __call__(self, tasks: list) -> list:
        """What each gives; one that takes a minute ends the process, and so fails the test."""
        return [self._one(task) for task in tasks]

    def _one(self, task):
        watch = threading.Timer(60, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        finally:
            watch.cancel()

    def close(self):
        self.process.communicate()


def text(data: bytes) -> str:
    """Bytes as the harness takes them."""
    return base64.b64encode(data).decode()


def raw(data: str) -> bytes:
    """And as it gives them."""
    return base64.b64decode(data)
