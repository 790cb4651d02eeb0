"""How commands write text files: checked before long work, then whole or not at all."""

import os
import secrets
from pathlib import Path

import click


def check_text_file(path: Path) -> None:
    """Refuse a file that `write_text_file` could not write."""
    reason = None
    target = path.resolve()
    if target.is_dir():
        reason = "it is a folder"
    elif not target.parent.is_dir():
        reason = f"no such folder '{target.parent}'"
    elif target.exists() and not target.is_file():
        reason = "it is not a regular file"
    elif not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
        reason = "permission denied"
    if reason:
        raise click.UsageError(f"cannot write '{path}': {reason}")


def write_text_file(path: Path, text: str) -> None:
    """Write `text` beside its place, then rename; a symbolic link stays, and what it points to is replaced."""
    target = path.resolve()
    temporary = target.with_name(f".vggfeat-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        temporary.replace(target)
    except OSError as error:
        raise click.ClickException(f"cannot write '{path}': {(error.strerror or str(error)).lower()}") from error
    finally:
        temporary.unlink(missing_ok=True)
