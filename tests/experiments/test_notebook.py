"""The Colab notebook: stored clean, and run from its first cell to its last with small settings."""

import importlib.metadata
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from clic_jax.files import images
from clic_jax.training import sources
from tests.conftest import QUICK_COMPILER, ROOT

PATH = ROOT / "experiments" / "clic_jax_colab.ipynb"
SMALL = """
MAX_SIDE, CURVE, STEPS, OUT = 128, (20, 80), 2, {out!r}
TRAINING = ["train.batch=2", "train.crop=64", "train.warmup=1"]

from clic_jax.exchange import publish

publish.CALIBRATION_PIXELS = 2**16
"""
ASK = """
import json

def decoded(name, **kwargs):
    return clic_jax.decompress((out / name).read_bytes(), **kwargs).tolist()

(out / "tuned.clic").write_bytes(file)
sizes = [len(clic_jax.compress(x, quality=quality)) for quality in CURVE]
pictures = {"x": x.tolist(), "photo": decoded("photo.clic"), "tuned": decoded("tuned.clic", model=mine)}
print(json.dumps({"curves": curves, "sizes": sizes, "pictures": pictures}))
"""


@pytest.fixture()
def notebook():
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


@pytest.fixture()
def execute(monkeypatch):
    """A function that runs a notebook in a folder, in a kernel of its own with one device."""
    monkeypatch.setenv("XLA_FLAGS", QUICK_COMPILER)

    def run(notebook, folder):
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
        return client.execute()

    return run


def printed(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def pictures(cell) -> int:
    return sum("image/png" in output.get("data", ()) for output in cell.outputs)


def test_stored_clean(notebook):
    """Valid nbformat 4.5 with cell ids, at most 12 cells, no outputs, nothing of the last run."""
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len(notebook.cells) <= 12
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_runs_from_top_to_bottom(notebook, execute, tmp_path):
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(place + 1, new_code_cell(SMALL.format(out=str(tmp_path))))
    notebook.cells.append(new_code_cell(ASK))
    done = execute(notebook, PATH.parent)
    cells = {cell.id: cell for cell in done.cells}
    assert str(ROOT) in printed(cells["install"])
    assert [pictures(cells[name]) for name in ("open", "compress", "curve")] == [1, 1, 1]

    assert (tmp_path / "fine-tuned.zip").stat().st_size > 1e5
    check_numbers(json.loads(printed(done.cells[-1])), printed(cells["finetune"]), tmp_path)


def check_numbers(told: dict, text: str, out: Path):
    """What the notebook shows, against the files it wrote and a JPEG of our own."""
    photograph = Image.fromarray(images.read_rgb(sources.sample_photographs("valid")[0]))
    photograph.thumbnail((128, 128), Image.Resampling.LANCZOS)
    x, photo, tuned = (np.array(told["pictures"][name], np.uint8) for name in ("x", "photo", "tuned"))
    np.testing.assert_array_equal(x, photograph)
    for name, label, x_hat in (("photo", "clic-compact-detail:", photo), ("tuned", "fine-tuned:         ", tuned)):
        size = (out / f"{name}.clic").stat().st_size
        assert f"{label} {size:,} bytes, {8 * size / x[..., 0].size:.3f} bpp, {psnr(x, x_hat):.2f} dB" in text
    curves = told["curves"]
    assert set(curves) == {"clic-compact-detail", "JPEG 4:4:4", "WebP"}
    assert [bpp for bpp, _ in curves["clic-compact-detail"]] == [8 * size / x[..., 0].size for size in told["sizes"]]
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=50, subsampling="4:4:4", optimize=True, progressive=True)
    point = (8 * len(file.getvalue()) / x[..., 0].size, psnr(x, np.array(Image.open(file))))
    assert any(np.allclose(point, other, rtol=1e-9) for other in curves["JPEG 4:4:4"])


def psnr(x, x_hat) -> float:
    return 10 * np.log10(255**2 / np.square(np.float64(x) - x_hat).mean())


class Distribution:
    """As importlib.metadata has them."""

    def __init__(self, name, version):
        self.metadata, self.version = {"Name": name}, version


@pytest.fixture()
def install(notebook, monkeypatch):
    """A function that runs the first cell with these packages, and those after pip; what pip is asked for."""
    (cell,) = (cell for cell in notebook.cells if cell.id == "install")
    source = cell.source.replace(
        '%pip install --quiet --editable "{root}[{extras}]" {" ".join(keep)}', "pip(extras, keep)"
    )
    assert "%pip" not in source and "pip(extras, keep)" in source

    def run(before, after=None):
        there, asked = [before], []

        def pip(*words):
            asked.append(words)
            there.append(after or before)

        monkeypatch.chdir(PATH.parent)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(
            importlib.metadata, "distributions", lambda: [Distribution(*row) for row in there[-1].items()]
        )
        exec(source.replace("!git", "pass  # "), {"pip": pip})
        return asked[0]

    return run


COLAB = {"jax": "0.7.2", "jaxlib": "0.7.2", "numpy": "2.1.3", "Pillow": "11.3.0"}


def test_what_the_install_leaves_alone(install, monkeypatch):
    """The jax of an accelerator stays; where there is none, that of the accelerator is installed."""
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert install(COLAB) == ("train,report", [])
    for plugin in ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu"):
        assert install(COLAB | {plugin: "0.7.2"}) == ("train,report", ["jax==0.7.2"])
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert install(COLAB) == ("train,report,cuda12", [])
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    assert install(COLAB) == ("train,report,tpu", [])


def test_when_to_restart(install):
    """Where pip replaces what the session has loaded, as numpy here; a package that is not loaded is no reason."""
    with pytest.raises(SystemExit, match="pip has replaced numpy: restart the session, and run this cell again"):
        install(COLAB, COLAB | {"numpy": "2.2.0"})
    install(COLAB, COLAB | {"jaxlib": "0.8.0"})


def test_outside_a_clone(notebook, execute, tmp_path):
    """The first cell says what it needs; with an address it fetches the repository and goes on with it."""
    (install,) = (cell for cell in notebook.cells if cell.id == "install")
    with pytest.raises(CellExecutionError, match="Write the address of the repository into REPOSITORY"):
        execute(new_notebook(cells=[install]), tmp_path)
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository's own .git to fetch from")
    install.source = install.source.replace('REPOSITORY = ""', f'REPOSITORY = "{ROOT}"')
    done = execute(new_notebook(cells=[install]), tmp_path)
    assert str(tmp_path / "repository") in printed(done.cells[0])
    assert (tmp_path / "repository" / "experiments" / "train").is_dir()
