"""From a dataclass to a command: parse, run, and answer with an exit code.

Exit codes: 0 done; 2 the user's input is wrong (one line on stderr says what and what to do);
1 the run failed and can be started again with the same words; 130 stopped by the user.
"""

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from lensray.errors import InputError, LensRayError

Config = TypeVar("Config")


def run_job(main: Callable[[Config], None], config_class: type[Config]) -> NoReturn:
    """Parse the command line into `config_class`, call ``main(config)`` and exit.

    Parameters
    ----------
    main : callable
        Takes the config; what it prints is the command's output.
    config_class : type
        A dataclass whose fields are the options and whose field docstrings are the help.
    """
    try:
        main(_parse(config_class))
    except InputError as error:
        _fail(2, f"error: {error}")
    except LensRayError as error:
        _fail(1, f"failed: {error} (the same command goes on where this run stopped)")
    except KeyboardInterrupt:
        _fail(130, "stopped: the same command goes on where this run stopped")
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the reader of our output has gone)
    except Exception:
        traceback.print_exc()
        _fail(1, "failed: see the traceback above; the same command goes on where this run stopped")
    sys.exit(0)


def _parse(config_class: type[Config]) -> Config:
    """The config; a wrong option becomes an `InputError` of one line."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(config_class)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(captured.getvalue())) from None
    except ValueError as error:  # a cross-field check in __post_init__
        raise InputError(_one_line(str(error))) from None


def _one_line(text: str) -> str:
    """Text without the box that tyro draws around its messages."""
    words = " ".join(line.strip("╭╮╰╯│─ \t") for line in text.splitlines())
    words = re.sub(r"─+|\[/?bold\]", " ", words)
    words = re.sub(r"^\s*Value error\s+Error parsing \w+:|For full helptext.*$", "", words)
    return " ".join(words.split())


def refuse(message: str) -> NoReturn:
    """End the command because the user's words are wrong."""
    _fail(2, f"error: {message}")


def _fail(code: int, message: str) -> NoReturn:
    print(_one_line(message), file=sys.stderr)
    sys.exit(code)
