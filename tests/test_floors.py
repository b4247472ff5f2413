"""The architecture as docs/architecture.md draws it: a room imports from the floors below its own alone."""

import ast
from pathlib import Path

from tests.conftest import ROOT

FLOORS = (
    ("errors", "scales", "memory"),
    ("config", "quality", "metrics", "cli", "processes", "runtime", "runtimes"),
    ("settings", "files", "model"),
    ("checkpoints", "coding", "training"),
    ("light",),
    ("api",),
    ("bulk", "exchange"),
    ("__init__", "__main__", "pillow"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = ROOT / "clic_jax"


def room_of(path: Path) -> str:
    """The sub-package that a file is in, or the file itself at the top."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports from), wherever the import stands in a file."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {(room_of(path), name.split(".")[1]) for name in names if name.startswith("clic_jax.")}
    return {(a, b) for a, b in found if a != b}


def test_every_room_has_a_floor():
    assert {room_of(path) for path in PACKAGE.rglob("*.py")} == set(FLOOR)


def test_imports_go_down():
    found = arrows()
    assert len(found) > 30
    assert [(a, b) for a, b in sorted(found) if FLOOR.get(b, 99) >= FLOOR[a]] == []


def test_no_private_name_crosses_files():
    """`_name` stays in its file, in the package and the experiments alike."""
    for path in (path for top in ("clic_jax", "experiments") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("clic_jax", "experiments")):
                assert not [a.name for a in node.names if a.name.startswith("_") and a.name != "__main__"], path


def test_no_file_is_long():
    long = {path: count for path in PACKAGE.rglob("*.py") if (count := len(path.read_text().splitlines())) > 300}
    assert not long
