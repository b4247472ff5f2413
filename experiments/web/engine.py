"""onnxruntime-web, from npm: the three files of it that the page needs, each known by its hash."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from clic_jax.errors import UserError

PACKAGE = "onnxruntime-web@1.30.0"
FOLDER = "ort"  # of the page
SHA256 = {  # of what is in `dist` of the package
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
REMEDY = f"try again later, or give the package with --tarball FILE (npm pack {PACKAGE})"


def files(site: Path, tarball: Path | None = None) -> dict[str, bytes]:
    """{name: contents} of the engine: those of a page that was built before, else from npm, or from `tarball`.

    Raises: UserError where npm is not installed or cannot fetch the package, or for a file with another hash.
    """
    found = {name: path.read_bytes() for name in SHA256 if (path := site / FOLDER / name).is_file()}
    if tarball is None and _wrong(found) is None:
        return found
    with tempfile.TemporaryDirectory() as folder:
        tarball = tarball or _fetched(Path(folder))
        try:
            with tarfile.open(tarball) as package:
                found = {name: package.extractfile(f"package/dist/{name}").read() for name in SHA256}
        except (OSError, KeyError, tarfile.TarError) as error:
            raise UserError(f"{tarball} is no package {PACKAGE} ({error}): {REMEDY}") from error
    if name := _wrong(found):
        raise UserError(f"{name} of {PACKAGE} has another hash than it had when it was tested: {REMEDY}")
    return found


def _fetched(folder: Path) -> Path:
    """The package's tarball, in `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm, which fetches {PACKAGE}, is not installed: install Node.js, or {REMEDY}")
    done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        raise UserError(f"npm cannot fetch {PACKAGE} ({said[0]}): {REMEDY}")
    return next(folder.glob("*.tgz"))


def _wrong(found: dict[str, bytes]) -> str | None:
    """The first file that is missing or has another hash."""
    return next((n for n, h in SHA256.items() if hashlib.sha256(found.get(n, b"")).hexdigest() != h), None)
