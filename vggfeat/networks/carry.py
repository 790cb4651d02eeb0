"""Carry weights to a machine without network: fetch them, export a file, import it with its hash checked.

An exported file holds the features of an entry, with the fingerprint of every layer, or is torchvision's own file of
the whole network.
"""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vggfeat import files
from vggfeat.errors import WeightsError
from vggfeat.networks.checkpoints import decode, fingerprints, fit, metadata, pack, read_state
from vggfeat.networks.downloads import cache_dir, sha256
from vggfeat.networks.table import TABLE, WeightsEntry, entry_of_digest
from vggfeat.networks.weights import load_entry, whole, whole_on_disk, whole_url


class Carried(NamedTuple):
    """A file on this machine, and what it holds: an entry's features, or the whole network with its classifier."""

    entry: WeightsEntry
    path: Path
    whole: bool


def fetch(entry: WeightsEntry, *, classifier: bool = False) -> Carried:
    """Download an entry unless it is on this machine, and check it. With `classifier`, torchvision's whole network.

    Raises `WeightsError` if it cannot be downloaded or kept, or is damaged.

    >>> from vggfeat import weights
    >>> fetch(weights.find_entry("alexnet")).path.name
    'alexnet-imagenet1k_v1.safetensors'
    """
    if classifier:
        return Carried(entry, whole(entry.network, entry.name), whole=True)
    load_entry(entry)
    return Carried(entry, entry.path, whole=False)


def export(entry: WeightsEntry, path: Path, *, classifier: bool = False) -> str:
    """Write the file of an entry to `path`, which must not exist, and return its sha256. Fetches it if need be.

    Raises `WeightsError`, also if the file cannot be written.
    """
    if path.exists():
        raise WeightsError(f"cannot write '{path}': it exists")
    _copy(fetch(entry, classifier=classifier).path, path)
    return sha256(path)


def import_file(path: Path, *, digest: str | None = None, classifier: bool = False) -> tuple[Carried, ...]:
    """Put a file from another machine into the cache folder: one that `export` wrote, or torchvision's own.

    Of torchvision's file, whose sha256 is known, the features are kept; the whole file if `classifier`, or if its
    features ship with vggfeat. A file of `export` is checked against the fingerprints of its layers. `digest` is the
    file's sha256, or its first eight or more digits, as `export` returns it.

    Raises `WeightsError` if a hash differs, if the file is none of the known weights, or if it cannot be kept.
    """
    found = sha256(path)
    if digest is not None and (len(digest) < 8 or not found.startswith(digest.lower())):
        raise WeightsError(f"the sha256 of '{path}' is {found}, not '{digest}'")
    entry = next((entry for entry in TABLE if entry_of_digest(entry.network, found) == entry), None)
    if entry is None:
        return (_import_features(path),)
    kept: list[Carried] = []
    if not entry.bundled:
        features = fit(read_state(path), entry.network, f"'{path}'")
        with _keeping(entry.path):
            pack(entry.path, entry, features, features)
        kept.append(Carried(entry, entry.path, whole=False))
    if (url := whole_url(entry)) and (classifier or entry.bundled):
        target = whole_on_disk(entry) or cache_dir() / url.rpartition("/")[2]
        if not (target.exists() and sha256(target) == found):
            _copy(path, target)
        kept.append(Carried(entry, target, whole=True))
    if not kept:
        raise WeightsError(f"the features in '{path}' ship with vggfeat as {entry}: there is nothing to import")
    return tuple(kept)


def _import_features(path: Path) -> Carried:
    about = metadata(path)
    entry = next(
        (entry for entry in TABLE if (entry.network, entry.name) == (about.get("network"), about.get("weights"))), None
    )
    if entry is None:
        raise WeightsError(
            f"'{path}' is none of the known weights, by its sha256 or its description: pass it as weights='{path}'"
        )
    if entry.bundled:
        raise WeightsError(f"weights {entry} ship with vggfeat: there is nothing to import")
    state = fit(decode(read_state(path)), entry.network, f"'{path}'")
    if about["layers"] != fingerprints(entry.network, state):
        raise WeightsError(f"'{path}' is damaged: its layers are not those that were written")
    _copy(path, entry.path)
    return Carried(entry, entry.path, whole=False)


def _copy(source: Path, target: Path) -> None:
    with _keeping(target), files.replacing(target) as unfinished:
        shutil.copyfile(source, unfinished)


@contextmanager
def _keeping(target: Path) -> Generator[None]:
    """Make the folder of a file that is written in the block. Converts `OSError` to `WeightsError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WeightsError(f"cannot write '{target}': {files.reason(error)}") from error
