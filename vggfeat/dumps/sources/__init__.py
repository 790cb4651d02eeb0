"""Finds the pictures of a dump's sources: pictures, folders, lists of paths and tar files."""

from vggfeat.dumps.sources.finding import find
from vggfeat.dumps.sources.item import Item, PathLike, fingerprint, printable
from vggfeat.dumps.sources.lists import import_parquet
from vggfeat.dumps.sources.places import Places

__all__ = ["Item", "PathLike", "Places", "find", "fingerprint", "import_parquet", "printable"]
