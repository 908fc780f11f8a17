"""One kind of error for what a user can mend, and how the command lines show it."""

import io
import os
import sys
import warnings
from collections.abc import Callable


class UserError(ValueError):
    """Says in one sentence what was wrong, where, and what to do about it."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command line: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what the terminal has no letters for
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes the rest at its end
        sys.exit(1)
