"""Builds a page that decodes .clic files in the browser, to be served by any web server. docs/web.md.

    python -m experiments.web --out site                         # with all models of the package
    python -m experiments.web --model clic-compact --out site    # with one, or with several, or published folders
    python3 -m http.server --directory site                      # and then http://localhost:8000

onnxruntime-web comes from npm, once. A folder that --out names is replaced if it is a page that was built before.
"""

import argparse
import json
from pathlib import Path

from clic_jax.checkpoints import installed
from clic_jax.errors import UserError
from clic_jax.files import atomic
from experiments import cli
from experiments.web import engine, model

PAGE = Path(__file__).parent / "page"
MODELS = "models/models.json"  # which a page that was built has


def parse(argv=None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.web", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", nargs="+", default=list(installed.installed()), metavar="NAME", help="or folders; default all")
    add("--out", type=cli.path, required=True, metavar="FOLDER", help="the page")
    add("--tarball", type=cli.path, metavar="FILE", help=f"{engine.PACKAGE} as npm packs it, where npm cannot fetch it")
    return parser.parse_args(argv)


def build(names: list[str], site: Path, tarball: Path | None = None) -> dict[str, int]:
    """Writes the page, complete or not at all: {file: bytes}.

    Raises: UserError for a folder that holds something else; for no model; as `engine.files` and `model.files`.
    """
    if site.is_symlink() or site.exists() and not (site / MODELS).is_file() and (site.is_file() or any(site.iterdir())):
        raise UserError(f"{site} holds something else than a page: name another folder, or a new one")
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.is_file()}
    files |= {f"{engine.FOLDER}/{name}": content for name, content in engine.files(site, tarball).items()}
    if not names:
        raise UserError("no model is installed: give --model FOLDER, a published folder that is exported")
    built = []
    for name in dict.fromkeys(names):
        identity, found = model.files(name)
        about = {"id": identity, "name": Path(name).name, "integrity": model.integrity(found["model.json"])}
        built.append(about)
        files |= {f"models/{identity}/{file}": content for file, content in found.items()}
    files[MODELS] = json.dumps({"built": built, "released": installed.released()}).encode()
    with atomic.new_folder(site) as made:
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
    return {name: len(content) for name, content in files.items()}


def main(argv=None) -> None:
    """`python -m experiments.web`."""
    args = parse(argv)
    sizes = build(args.model, args.out, args.tarball)
    parts = {"page": 0, engine.FOLDER: 0, "models": 0}
    for name, size in sizes.items():
        parts[name.split("/")[0] if "/" in name else "page"] += size
    told = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in parts.items())
    print(f"{args.out}: {told}; python3 -m http.server --directory {args.out}")


if __name__ == "__main__":
    cli.run(main)
