"""Finds the pictures of a dump's sources: pictures, folders, lists, tables, archives and arrays."""

from vggfeat.dumps.sources.content import read_member
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.finding import find, numbered
from vggfeat.dumps.sources.item import Item, PathLike, fingerprint, printable
from vggfeat.dumps.sources.moves import Move, first_difference, is_within
from vggfeat.dumps.sources.parquet import import_parquet
from vggfeat.dumps.sources.places import Places

__all__ = [
    "Item",
    "Move",
    "PathLike",
    "Places",
    "SourceFilter",
    "find",
    "fingerprint",
    "first_difference",
    "import_parquet",
    "is_within",
    "numbered",
    "printable",
    "read_member",
]
