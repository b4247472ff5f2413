"""Where things lie in a clone."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "experiments" / "configs"  # one experiment a file
RESULTS = ROOT / "experiments" / "results"  # measured figures, committed
