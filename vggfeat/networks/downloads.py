"""The cache folder, and torchvision's files, which are downloaded once and checked."""

import hashlib
import os
import sys
from pathlib import Path
from urllib import request

from vggfeat import files
from vggfeat.errors import WeightsError


def cache_dir() -> Path:
    """The folder of downloads: `$VGGFEAT_CACHE`, else `vggfeat` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises `WeightsError` if none of the variables is set and the user has no home folder.
    """
    if chosen := os.environ.get("VGGFEAT_CACHE"):
        return Path(chosen)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "vggfeat"
    try:
        return Path.home() / ".cache/vggfeat"
    except RuntimeError as error:
        raise WeightsError(
            "there is no home folder for downloaded weights: set VGGFEAT_CACHE to a folder for them, or HOME"
        ) from error


def torchvision_file(url: str, folder: Path, *, what: str, hint: str) -> Path:
    """The path of torchvision's file behind `url`: one on this machine, else downloaded into `folder`.

    An existing file is looked for in the cache folder, in torch's, and in `folder`. Raises `WeightsError` if the
    download fails (the message names `what` and gives `hint`), or if the sha256 does not begin with the digits at the
    end of the file's name.
    """
    name = url.rpartition("/")[2]
    if found := on_disk(name, folder):
        _check_name(found, name, sha256(found))
        return found
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            _check_name(path, name, _download(url, temporary))
    except OSError as error:  # the base class of urllib's errors
        reason = getattr(error, "reason", None) or error.strerror or error
        raise WeightsError(
            f"{what} could not be downloaded ({reason}); {hint}; "
            f"or put torchvision's {name} into '{cache_dir()}', or pass a file's path"
        ) from error
    return path


def on_disk(name: str, *folders: Path) -> Path | None:
    """The file `name` in the cache folder, in torch's, or in `folders`; None if it is in none of them."""
    import torch

    places = (cache_dir(), Path(torch.hub.get_dir()) / "checkpoints", *folders)
    return next((place / name for place in places if (place / name).is_file()), None)


def sha256(path: Path) -> str:
    """The sha256 of a file of weights. Raises `WeightsError` if the file cannot be read."""
    with files.os_errors_as(WeightsError, f"cannot read weights '{path}'"):
        return files.sha256(path)


def _download(url: str, path: Path) -> str:
    """Download `url` to `path`, with a progress bar if standard error is a terminal. Returns the sha256."""
    from rich.console import Console
    from rich.progress import wrap_file

    console = Console(file=sys.stderr)
    digest = hashlib.sha256()
    with request.urlopen(url, timeout=30) as answer, path.open("wb") as file:  # noqa: S310 (torchvision's https addresses)
        length = int(answer.headers.get("Content-Length", 0))
        name, quiet = url.rpartition("/")[2], not console.is_terminal
        with wrap_file(answer, length, description=name, console=console, disable=quiet) as body:
            while chunk := body.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()


def _check_name(file: Path, name: str, digest: str) -> None:
    """Check a sha256 against its first digits, which end torchvision's file names. Raises `WeightsError`."""
    stated = Path(name).stem.rpartition("-")[2]
    if not digest.startswith(stated):
        raise WeightsError(f"'{file}' is not torchvision's: its sha256 begins with {digest[:8]}, not {stated}")
