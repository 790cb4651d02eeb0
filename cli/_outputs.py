"""Output files: checked before the work begins, then written whole or not at all."""

import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat import files

if TYPE_CHECKING:
    from torch import Tensor

# The longest chain of symbolic links that Linux follows, too.
_MOST_LINKS = 40

Named = tuple[str, str | Path]
"""The role of a file, for error messages (`the output`, `--plot`), and its path."""


def check_paths(outputs: Iterable[Named], inputs: Iterable[str | Path]) -> None:
    """Refuse an output that is one of the inputs, and two outputs with one path."""
    read = {files.identity(path) for path in inputs}
    written: dict[object, str] = {}
    for role, path in outputs:
        place = files.identity(path)
        if place in read:
            raise click.UsageError(f"the output '{path}' is one of the inputs")
        if place in written:
            raise click.UsageError(f"{written[place]} and {role} are both '{path}': give each a file of its own")
        written[place] = role


def chosen_output(output: str | None, default: str) -> Path:
    """The path `output`, or if it is None, `default`, numbered if that file exists (`a.png`, `a-2.png`)."""
    if output is not None:
        return Path(output)
    path = Path(default)
    candidates = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(other for other in candidates if not other.exists())


def picture_output(
    output: str | None, default: str, inputs: Iterable[str | Path], *, size: tuple[int, int] | None = None
) -> Path:
    """As `chosen_output`. Refuses a picture that cannot be written or is one of the inputs.

    `size`: its (height, width), if that is known already.
    """
    from vggfeat.pictures import images

    path = chosen_output(output, default)
    images.check_writable(path, size=size)
    check_paths([("the output", path)], inputs)
    return path


def save_picture(path: Path, rgb: "Tensor", **options: Any) -> None:
    """Write a picture as `write_picture` does, and never lose it.

    If nothing can be written to its folder, it becomes a PNG in the current folder, or in that for temporary files.
    Raises `ImageError` if it could not be written to `path`; it says where the picture is instead.
    """
    from vggfeat.errors import ImageError
    from vggfeat.pictures import images

    try:
        images.write_picture(path, rgb, **options)
    except ImageError as error:
        if error.saved_as is not None:
            raise
        plain: dict[str, Any] = {**options, "bits": 8, "icc": None}
        for folder in (Path(), Path(tempfile.gettempdir())):
            spare = chosen_output(None, str(folder.resolve() / f"{path.stem}.png"))
            with suppress(ImageError):
                images.write_picture(spare, rgb, **plain)
                break
        else:
            raise
        raise ImageError(str(error), spare) from error


def check_text_outputs(
    texts: Mapping[str, str], pictures: Iterable[Named], inputs: Iterable[str | Path], folders: Collection[str] = ()
) -> None:
    """Refuse text files that cannot be written, or are an input or another output.

    Args:
        texts: {option: file}; `-` stands for standard output.
        pictures: further outputs.
        inputs: files that are read.
        folders: real paths of folders that will be made.
    """
    for name in texts.values():
        if not name:
            raise click.UsageError("an output has an empty name; - prints it")
        if name != "-":
            check_text_file(Path(name), folders)
    if list(texts.values()).count("-") > 1:
        raise click.UsageError(f"{' and '.join(texts)} cannot both go to '-'")
    check_paths([*((option, name) for option, name in texts.items() if name != "-"), *pictures], inputs)


def write_texts(texts: Mapping[str, str], contents: Mapping[str, Callable[[], str]]) -> bool:
    """Write or print the contents of {option: file}. Returns whether standard output is free for other text."""
    for option, name in texts.items():
        if name == "-":
            click.echo(contents[option](), nl=False)
            continue
        try:
            files.write(name, contents[option]())
        except OSError as error:
            raise click.ClickException(f"cannot write '{name}': {files.reason(error)}") from error
    return "-" not in texts.values()


def check_text_file(path: Path, folders: Collection[str] = ()) -> None:
    """Refuse a file that cannot be replaced atomically. `folders`: real paths of folders that will be made."""
    reason = None
    target = Path(os.path.realpath(path))
    if target.is_dir() or str(target) in folders:
        reason = "it is a folder"
    elif target.is_symlink() or (target.exists() and not target.is_file()) or _is_stream(path):
        reason = "it is not a regular file (- prints)"
    elif not target.parent.is_dir():
        reason = None if str(target.parent) in folders else f"no such folder '{target.parent}'"
    elif not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
        reason = "permission denied"
    if reason:
        raise click.UsageError(f"cannot write '{path}': {reason}")


def _is_stream(path: Path) -> bool:
    """Whether the path stands for an open file, such as `/dev/stdout` or `/dev/fd/3`."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if folder in ("/dev", "/dev/fd") or folder.startswith("/proc/"):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder, path.readlink())
    return True
