"""What every `python -m experiments.X` does with errors: the user's mistakes become one line, real faults keep their
traceback."""

import sys

from clic_jax.errors import UserError


def run(main) -> None:
    """Calls main() and exits with its status; 2 with one line for bad input or a failing disk, 130 for Ctrl-C."""
    try:
        status = main()
    except (UserError, OSError) as error:
        print(
            f"{main.__module__.removeprefix('__main__') or sys.argv[0]}: error: {' '.join(str(error).split())}",
            file=sys.stderr,
        )
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
