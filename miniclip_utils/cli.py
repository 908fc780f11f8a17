"""How a command line ends: an error that a user can mend is one line on stderr."""

import io
import os
import sys
import warnings
from collections.abc import Callable

from .errors import UserError


def run_command(main: Callable[[], None]) -> None:
    """Runs a command line. Exit code 2 after a `UserError`, 1 where the system refuses something, 130 after Ctrl-C."""
    warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for letters that the terminal cannot show
    try:
        main()
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # such as a full disk below the output, or a folder that may not be read
        if not isinstance(error, BrokenPipeError):  # the reader of our output, such as `head`, has gone
            where = repr(str(error.filename)) if error.filename else "the output"
            reason = error.strerror or error
            print(f"error: cannot use {where} ({reason}): mend that, or choose another place", file=sys.stderr)
        try:
            if sys.stdout:
                sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes the rest at its end
        sys.exit(1)
