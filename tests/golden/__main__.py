"""Do the golden files decode here, to the integers and pictures that they always had? Needs the light install alone.

python -m tests.golden
"""

import json
import platform

from clic_jax.coding import range_coder
from tests.golden import pinned

if __name__ == "__main__":
    coder = "constriction" if range_coder.constriction else "the coder in Python"
    print(f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, {coder}", flush=True)
    for path in sorted(pinned.FOLDER.glob("*/expected.json")):
        expected = json.loads(path.read_text())
        pinned.check(pinned.listening(expected["name"], "onnx"), path.parent.name, expected, path.parent)
        print(f"{expected['name']}: {len(expected['files'])} files decode to the same integers", flush=True)
