"""Write files atomically and CSV lines, recognise picture files by name, and turn an `OSError` into one line."""

import codecs
import csv
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path, PurePath
from typing import TextIO

from vggfeat.errors import VggfeatError, did_you_mean, similar

PREFIX = ".vggfeat-"
"""The name of an unfinished file starts with this."""

HEIC = frozenset({".heic", ".heif"})
"""Endings that need the plugin pillow-heif."""

# A missing name is compared with at most this many names of its folder.
_MOST_NAMES = 2000

# Formats that Pillow registers, but which need another program or are vector graphics.
_NOT_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")


class CsvWriter:
    r"""Writes CSV lines that end in `\n`.

    Up to Python 3.12, `csv.writer` quotes only the characters of its own line end, but `csv.reader` also splits at a
    bare `\r`. So the lines are formatted with `\r\n`, and the end is replaced.

    >>> import sys
    >>> CsvWriter(sys.stdout).writerow(["a", 'b"c', "d,e"])
    a,"b""c","d,e"
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._format = csv.writer(self)

    def writerow(self, values: Iterable[object]) -> None:
        """Write one line."""
        self._format.writerow(values)

    def write(self, line: str) -> None:
        """Receive a formatted line from `csv`."""
        self._file.write(line.removesuffix("\r\n") + "\n")


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    r"""A CSV table as text, with `\n` at the end of each line.

    >>> csv_text(["name", "value"], [["a", 1.5], ["b", None]])
    'name,value\na,1.5\nb,\n'
    """
    text = io.StringIO()
    writer = CsvWriter(text)
    for line in (columns, *rows):
        writer.writerow(line)
    return text.getvalue()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield the path of a temporary file to write; at the end, sync it to disk and rename it to `path`.

    The temporary file is in the same folder and has the ending of `path`. If the block raises, the temporary file is
    removed and `path` is unchanged. A symbolic link is followed: its target is replaced and keeps its mode.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{PREFIX}{secrets.token_hex(8)}{Path(path).suffix.lower()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
        with suppress(OSError):  # a folder that cannot be opened cannot be synced; the file is written all the same
            sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write bytes, or text as UTF-8 without converting line ends. The file appears whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def read_text(path: str | os.PathLike[str]) -> str:
    """Decode a text file by its byte-order mark, else as UTF-8. Windows PowerShell redirects output as UTF-16.

    Raises `OSError`, `UnicodeError`.
    """
    data = Path(path).read_bytes()
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((encoding for mark, encoding in marks.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding).replace("\r\n", "\n")


def sync_folder(path: Path) -> None:
    """Sync a folder's entries to disk, on systems that can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def natural_order(name: str | os.PathLike[str]) -> list[tuple[int, int, str]]:
    """A sort key for names that contain numbers: `frame2` comes before `frame10`.

    >>> sorted(["frame10.png", "frame2.png", "Frame1.png"], key=natural_order)
    ['Frame1.png', 'frame2.png', 'frame10.png']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", os.fspath(name))
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
    return [*key, (-1, 0, os.fspath(name))]  # the text itself breaks ties, such as between 1 and 01


def reason(error: OSError) -> str:
    """The system's description of an error, in lower case, to end a line with.

    >>> reason(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    return (error.strerror or str(error)).lower()


def similar_names(path: Path) -> str:
    """The end of an error about a missing file: similar names in its folder, or nothing.

    >>> similar_names(Path(__file__).with_name("flies.py"))
    "; did you mean 'files.py'?"
    """
    try:
        names = [other.name for other in islice(path.parent.iterdir(), _MOST_NAMES)]
    except OSError:
        return ""
    words = similar(path.name, sorted(names))
    return f"; {did_you_mean(list(map(repr, words)))}" if words else ""


@contextmanager
def os_errors_as(kind: type[VggfeatError], action: str) -> Generator[None]:
    """Convert an `OSError` in the block to `kind`, with the message `action: reason`.

    >>> from vggfeat.errors import ImageError
    >>> with os_errors_as(ImageError, "cannot read 'a.png'"):
    ...     open("missing/a.png")
    Traceback (most recent call last):
    vggfeat.errors.ImageError: cannot read 'a.png': no such file or directory
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{action}: {reason(error)}") from error


@cache
def picture_endings() -> frozenset[str]:
    """The endings of the picture files that can be read, in lower case with their dots.

    >>> ".jpeg" in picture_endings(), ".txt" in picture_endings()
    (True, False)
    """
    from PIL import Image

    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    known = Image.registered_extensions()  # loads all plugins, which fills Image.OPEN
    found = {ending for ending, kind in known.items() if kind in Image.OPEN and kind not in _NOT_PICTURES}
    return frozenset(found | HEIC)  # HEIC counts even without its plugin: the error when reading names the plugin


def sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, as hexadecimal digits. Raises `OSError`."""
    with open(path, "rb") as file:  # noqa: PTH123 (Path would normalise the path)
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: str | os.PathLike[str]) -> object:
    """A key that is equal for all names of one file, whether or not the file exists."""
    try:
        status = Path(path).stat()
    except OSError:
        return os.path.normcase(os.path.realpath(path))
    except ValueError:  # no file has such a name
        return os.fspath(path)
    return status.st_dev, status.st_ino


def pictures_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The pictures of a folder, with `deep` also those of its subfolders, in natural order.

    Hidden files and folders are skipped. Raises `OSError`.
    """
    found = folder.rglob("*") if deep else folder.iterdir()
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted((path for path in shown if is_picture(path) and path.is_file()), key=natural_order)


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file in a folder counts as a picture: its ending is known, and it is not hidden.

    >>> [is_picture(name) for name in ("a/b.JPG", "a/._b.JPG", "notes.txt")]
    [True, False, False]
    """
    name = PurePath(path)
    return name.suffix.lower() in picture_endings() and not name.name.startswith(".")
