"""What every `python -m experiments.X` does with errors: a user's mistake is one line, a fault keeps its traceback."""

import os
import sys
from collections.abc import Callable

from clic_jax.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Calls main() and exits with its status.

    Bad input (`clic_jax.errors.UserError`) and what the system refuses (OSError: a full disk, no permission, no such
    file) print `NAME: error: message`, one line, on standard error and exit with 2, as argparse does; Ctrl-C exits with
    130; a reader that goes away (`| head`) with 141, silently. Anything else is ours to mend and keeps its traceback.
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        status = 141
    except (UserError, OSError) as error:
        print(f"{_name(main)}: error: {_text(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"{_name(main)}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _name(main) -> str:
    """The command as it was typed after `python -m`."""
    if main.__module__ != "__main__":
        return main.__module__
    spec = sys.modules["__main__"].__spec__  # None for a file that is run by its path
    return spec.name if spec else os.path.basename(sys.argv[0])


def _text(error: Exception) -> str:
    """The error's text as one line; the system's errors without their number."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(text.split())
