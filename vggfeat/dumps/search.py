"""Searches a dump for the pictures most similar to others: queries become features, and these are compared."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.neighbours import Metric, nearest
from vggfeat.dumps.protocols import DumpLike, FeatureRows
from vggfeat.dumps.sources import Item, printable
from vggfeat.errors import ImageError, InputError, did_you_mean, similar

Array = npt.NDArray[Any]
Query = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The pictures of a dump most similar to one query, most similar first.

    Attributes:
        query: the id, or the path of the picture.
        row: the query's own row in the dump, which is not among its neighbours; None for a picture file.
        ids: of the neighbours.
        rows: of the neighbours in the dump's arrays, (K,).
        distances: (K,) in float64.
    """

    query: str
    row: int | None
    ids: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult(Sequence[Neighbours]):
    """The `Neighbours` of each query, in order.

    `array` and `metric` say what was compared, such as `relu4_3.mean` and `cosine`. `left_out` are the ids of pictures
    whose features hold infinite or NaN values, which are never neighbours.
    """

    found: tuple[Neighbours, ...]
    array: str
    metric: Metric
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def as_dict(self) -> dict[str, Any]:
        """The result as values for JSON."""
        return {
            "array": self.array,
            "metric": self.metric,
            "left_out": list(self.left_out),
            "results": [
                {
                    "query": one.query,
                    "neighbours": [
                        {"id": name, "distance": distance}
                        for name, distance in zip(one.ids, one.distances.tolist(), strict=True)
                    ],
                }
                for one in self.found
            ],
        }


def search(
    dump: DumpLike,
    array: FeatureRows,
    queries: Query | Iterable[Query],
    *,
    top: int = 10,
    metric: Metric = "cosine",
    device: str = "auto",
) -> SearchResult:
    """The pictures of `dump` whose features in `array` are nearest to those of each query.

    Args:
        dump: a complete dump.
        array: one of its arrays.
        queries: ids of the dump, or picture files, which go through the dump's network. A text that is an id means the
            id, a `Path` always a file.
        top: neighbours of each query.
        metric: `cosine` or `l2`, as in `neighbours.nearest`.
        device: where the network runs for picture files.

    Raises `InputError` for a query that is neither an id nor a file, `ImageError` for a file that cannot be read, and
    `StoreError` if the dump has no rows.
    """
    given = [queries] if isinstance(queries, str | os.PathLike) else list(queries)
    if not given:
        raise InputError("there is no query: name pictures, or ids of the dump")
    if not len(array):
        raise StoreError(f"'{printable(dump.path)}' has nothing to search: no picture could be read")
    shape = array.shape[1:]
    places = {name: row for row, name in reversed(list(enumerate(array.ids)))}
    rows = [_row(dump, query, places) for query in given]
    pictures = [os.fspath(query) for query, row in zip(given, rows, strict=True) if row is None]
    computed = iter(_features(dump, array, pictures, device) if pictures else ())
    wanted = np.stack([np.asarray(next(computed) if row is None else array[row], np.float64) for row in rows])
    if wanted.shape[1:] != shape:
        raise InputError(f"the features of the query are {wanted.shape[1:]}, and those of the dump {shape}")
    for query, features in zip(given, wanted, strict=True):
        if not np.isfinite(features).all():
            raise InputError(f"the features of '{printable(os.fspath(query))}' hold infinite or NaN values")
    own = {number: row for number, row in enumerate(rows) if row is not None}
    found = nearest(array, wanted, top=top, metric=metric, exclude=own)
    ids = array.ids
    return SearchResult(
        tuple(
            Neighbours(os.fspath(query), row, tuple(ids[place] for place in near_rows.tolist()), near_rows, distances)
            for query, row, near_rows, distances in zip(given, rows, found.rows, found.distances, strict=True)
        ),
        f"{array.layer}.{array.reduction}",
        metric,
        tuple(ids[place] for place in found.left_out.tolist()),
    )


def _row(dump: DumpLike, query: Query, places: dict[str, int]) -> int | None:
    """The row that `query` names; None for a file. Raises `InputError` if it is neither, or could mean either."""
    name = os.fspath(query)
    is_file = os.path.lexists(name)
    if isinstance(query, str) and query in places:
        if is_file and os.path.isfile(name) and _digest(name) != _recorded(dump, query):  # noqa: PTH113 (as given)
            raise InputError(
                f"'{printable(query)}' is an id of the dump and the name of another file: './{printable(query)}' is "
                "the file"
            )
        return places[query]
    if not is_file:
        words = similar(name, islice(places, 100_000))
        known = f"; {did_you_mean(words)}" if words else ""
        raise InputError(f"'{printable(name)}' is neither an id of the dump nor a file{known}")
    return None


def _digest(path: str) -> str:
    with files.os_errors_as(ImageError, f"cannot read '{printable(path)}'"):
        return files.sha256(path)


def _recorded(dump: DumpLike, name: str) -> str:
    return dump.manifest.texts("sha256")[dump.manifest.texts("id").index(name)]


def _features(dump: DumpLike, array: FeatureRows, pictures: Sequence[str], device: str) -> list[Array]:
    """The features of picture files, prepared, computed and stored as those of the dump."""
    from vggfeat.dumps.network import DumpNetwork
    from vggfeat.dumps.prepare import Preparation, prepare

    how = Preparation.of(dump.recipe)
    recipe = replace(dump.recipe, reductions={array.layer: (array.reduction,)}, statistics=False, cka=False, rdm=0)
    network = DumpNetwork(recipe, digest=dump.fingerprint["weights"]["sha256"], device=device)
    found: list[Array] = []
    for path in pictures:
        prepared = prepare(Item(path, path), how)
        if prepared.pixels is None:
            reason = prepared.error
            raise ImageError(reason if path in reason else f"'{printable(path)}': {reason}")
        finish = network.stored(prepared.pixels[None])
        if isinstance(finish, str):
            raise ImageError(f"'{printable(path)}': {finish}")
        found.append(finish().arrays[array.layer, array.reduction][0])
    return found
