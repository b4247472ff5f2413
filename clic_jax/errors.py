"""The base of every error that is the user's to mend: one line that says what is wrong and how to put it right."""


class UserError(ValueError):
    """Bad input. Command lines print its text as one line and exit with status 2; it never needs a traceback."""
