"""Files that are never half written, and JSON in them."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; a file that is missing, or holds anything else, is a `UserError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {str(path)!r}: {str(path.parent)!r} is not the folder of a run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} must hold one JSON object")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object; errors as in `write_file`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_file(path, text.encode(errors="backslashreplace"))  # bytes of a name that are no UTF-8 become JSON's \udc..


def write_file(path: Path, content: bytes) -> None:
    """Replaces a file in one step: after a crash or on a full disk the old file is still there, whole.

    Raises:
        UserError: the disk is full, or the folder may not be written to.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r} ({error.strerror}): the file that was there is kept") from error
    finally:  # also after Ctrl-C; nothing is left to delete once the file is in its place
        with suppress(OSError):
            temporary.unlink()
