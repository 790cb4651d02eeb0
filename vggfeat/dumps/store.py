"""The folder of a dump. A kill at any moment leaves it consistent.

    OUT/run.json                        what is computed, of which inputs, in which batches
    OUT/relu3_3.mean/000012.npy         shard 12 of one layer and reduction; 000012-240x320.npy if image sizes differ
    OUT/receipts/000012.json            the entries of its inputs, and the hashes of its files; written last
    OUT/receipts/000012.npz             its part of the statistics
    OUT/manifest.csv                    the entries of all receipts, written when all shards are complete
    OUT/append.json                     what is being appended, until it is complete

A shard without a receipt does not count. Every file is written under a temporary name, synced and renamed.
"""

import filecmp
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from vggfeat import files
from vggfeat.dumps import run_file
from vggfeat.dumps.errors import StoreError, store_errors
from vggfeat.dumps.locking import LOCK, locked
from vggfeat.dumps.manifest import FORMATS, ManifestEntry, ManifestFormat, write_manifest
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.shards import TEMPORARY, ShardFiles, shard_name
from vggfeat.dumps.sources import printable

APPEND = "append.json"
"""The file that says what is being appended; see `appending`."""


class Store:
    """The dump folder `out`. It is created by the first write."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.path = Path(out)

    def run(self) -> dict[str, Any] | None:
        """The content of run.json; None if there is no such file. Raises `StoreError` if it is damaged."""
        return run_file.read_run(self.path)

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Write run.json."""
        run_file.write_run(self.path, content)

    def create(self) -> None:
        """Create the folder. Raises `StoreError` if the path is a file or a folder with other content."""
        with files.os_errors_as(StoreError, f"cannot write '{printable(self.path)}'"):
            self.path.mkdir(parents=True, exist_ok=True)
        with store_errors(self.path):
            others = [path.name for path in self.path.iterdir() if path.name != LOCK and not _is_temporary(path)]
        if self.run() is None and others:
            raise StoreError(f"'{printable(self.path)}' is not empty and not a dump: it holds {printable(min(others))}")

    def locked(self) -> AbstractContextManager[None]:
        """Keep other runs out of the folder while the context lasts."""
        return locked(self.path)

    def entries(self, number: int) -> tuple[ManifestEntry, ...]:
        """The entries of a shard, whether its files are complete or not. Raises `StoreError` if it has no receipt."""
        path = self.path / f"receipts/{shard_name(number)}.json"
        try:
            return Receipt.from_json(path.read_text("utf-8")).entries
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(
                f"cannot read '{printable(path)}' ({error}): the command that made the dump recomputes it"
            ) from error

    @property
    def appends(self) -> bool:
        """Whether an append is not complete."""
        return (self.path / APPEND).exists()

    def drop_append(self) -> None:
        """Delete the record of an append."""
        with store_errors(self.path):
            (self.path / APPEND).unlink(missing_ok=True)

    def receipts(self) -> dict[int, Receipt]:
        """The receipts of the complete shards, by shard number."""
        return {receipt.shard: receipt for receipt in self.each_receipt()}

    def each_receipt(self) -> Iterator[Receipt]:
        """Read the receipts of the complete shards one by one, in order.

        A shard is complete if its receipt can be read and all its files have the recorded sizes.
        """
        numbered = [(int(path.stem), path) for path in self.path.glob("receipts/*.json") if path.stem.isdecimal()]
        for number, path in sorted(numbered):
            try:
                receipt = Receipt.from_json(path.read_text("utf-8"))
                sizes = {name: about["bytes"] for name, about in receipt.files.items()}
                complete = all((self.path / name).stat().st_size == size for name, size in sizes.items())
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue
            if complete and receipt.shard == number and path.stem == shard_name(number):
                yield receipt

    def sweep(self, keep: Iterable[int]) -> None:
        """Delete what killed runs left: temporary files, and files of shards whose numbers are not in `keep`."""
        kept = {shard_name(number) for number in keep}
        with store_errors(self.path):
            for path in (*self.path.glob(".*"), *self.path.glob("*/.*")):
                if _is_temporary(path):
                    path.unlink(missing_ok=True)
            # Receipts first: a shard must not lose a file while it has a receipt.
            for pattern in ("receipts/*.json", "receipts/*.npz", "*/*.npy"):
                for path in self.path.glob(pattern):
                    if path.stem.partition("-")[0] not in kept:
                        path.unlink(missing_ok=True)

    def invalidate(self) -> None:
        """Delete the manifest, because shards are about to be computed."""
        self._delete_manifests(FORMATS)

    def shard(self, number: int, before: Receipt | None = None, layers: Sequence[str] = ()) -> ShardFiles:
        """The files of a shard, to be written. For `before` and `layers` see `ShardFiles`."""
        return ShardFiles(self.path, number, before, layers)

    def write_manifest(self, shards: int, form: ManifestFormat, columns: Sequence[str] = ()) -> Path:
        """Write the manifest from the receipts, in the order of the sources. Returns its path.

        `columns`: the names of the source's columns. A manifest with the same content is left untouched. Raises
        `StoreError` if one of the `shards` is missing.
        """
        target = self.path / f"manifest.{form}"
        found: list[int] = []

        def entries() -> Iterator[ManifestEntry]:
            for receipt in self.each_receipt():
                found.append(receipt.shard)
                yield from receipt.entries

        with store_errors(self.path), suppress(_UnchangedError), files.replacing(target) as unfinished:
            write_manifest(unfinished, form, entries(), columns)
            if len(found) < shards:
                raise StoreError(
                    f"{shards - len(found)} of {shards} shards of '{printable(self.path)}' are missing: "
                    "run the same command to compute them"
                )
            if target.is_file() and filecmp.cmp(unfinished, target, shallow=False):
                raise _UnchangedError
        self._delete_manifests(other for other in FORMATS if other != form)
        return target

    def _delete_manifests(self, forms: Iterable[ManifestFormat]) -> None:
        with store_errors(self.path):
            for form in forms:
                (self.path / f"manifest.{form}").unlink(missing_ok=True)


class _UnchangedError(Exception):
    """Leaves `files.replacing` without replacing the file."""


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(files.PREFIX) or (path.name.startswith(".") and path.name.endswith(TEMPORARY))
