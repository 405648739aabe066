"""What can go wrong, as a small tree of exceptions.

`InputError` is the user's to mend (exit code 2, one line); every other `LensRayError` is a run that
failed and can be started again (exit code 1).
"""


class LensRayError(Exception):
    """Base class of the errors that LensRay raises on purpose."""


class InputError(LensRayError, ValueError):
    """What the user gave is wrong. The message says what came and what to do, in one line."""
