"""RDMs of a dump's arrays, compared with measured ones or with each other."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.export import choose
from vggfeat.dumps.rdms import ComparableRdm, RdmMethod, check_rdm, compare_prepared
from vggfeat.dumps.reading import Dump
from vggfeat.dumps.rsa import RsaResult, explain_rdms
from vggfeat.dumps.sources import PathLike, printable
from vggfeat.dumps.statistics import RdmDistance
from vggfeat.errors import InputError, did_you_mean, similar

Array = npt.NDArray[Any]


def similarities(
    dump: Dump,
    *,
    layers: Iterable[str] = (),
    reductions: Iterable[str] = (),
    distance: RdmDistance = "correlation",
    method: RdmMethod = "spearman",
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The names of the chosen arrays, and the similarity of the RDMs of each pair, (A, A).

    Raises `RecipeError` for names that match nothing, and `InputError` for fewer than three pictures or constant ones.
    """
    found = _rdms(dump, None, layers, reductions, distance)
    ready = [ComparableRdm.of(check_rdm(rdm, f"the RDM of {name}"), method) for name, rdm in found.items()]
    return list(found), np.array([[compare_prepared(a, b, method) for b in ready] for a in ready])


def explain(
    dump: Dump,
    reference: PathLike | Array,
    *,
    ids: PathLike | Iterable[str] | None = None,
    layers: Iterable[str] = (),
    reductions: Iterable[str] = (),
    distance: RdmDistance = "correlation",
    method: RdmMethod = "spearman",
    bootstrap: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
) -> RsaResult:
    """Measure how similar the RDMs of a dump's arrays are to measured ones.

    Args:
        dump: holds an array for each layer to compare.
        reference: RDMs (N, N), or (S, N, N) of several subjects; or a `.npy` file of one, or a `.csv` file of (N, N).
        ids: of the reference's pictures, in order, or a file with one a line; None if they are those of the dump.
        layers: names or globs of the arrays' layers; all if empty.
        reductions: names or globs of their reductions; all if empty.
        distance: between the features of two pictures.
        method: the similarity of RDMs, as in `rdms.compare_rdms`.
        bootstrap: samples for the intervals.
        permutations: of the pictures, for the p-values.
        seed: of both.

    Raises `InputError` for a reference that does not fit, and `RecipeError` for arrays that the dump does not hold.
    """
    data = reference if isinstance(reference, np.ndarray) else _read(Path(reference))
    places = None
    if ids is not None:
        known = {name: row for row, name in enumerate(dump.ids)}
        named = _lines(Path(ids)) if isinstance(ids, str | os.PathLike) else list(ids)
        for name in named:
            if name not in known:
                words = similar(name, list(known)[:10_000])
                hint = f": {did_you_mean(words)}" if words else ""
                raise InputError(f"the dump has no picture '{printable(name)}'{hint}")
        if len(set(named)) < len(named):
            raise InputError("the ids name a picture twice")
        places = np.array([known[name] for name in named], np.int64)
    count = len(dump) if places is None else len(places)
    if data.ndim not in (2, 3) or data.shape[-2:] != (count, count):
        whose = "the dump has" if places is None else "the ids name"
        raise InputError(f"the reference is {data.shape}, and {whose} {count} pictures: pass RDMs ({count}, {count})")
    models = _rdms(dump, places, layers, reductions, distance)
    return explain_rdms(models, data, method, bootstrap=bootstrap, permutations=permutations, seed=seed)


def _rdms(
    dump: Dump,
    places: npt.NDArray[np.int64] | None,
    layers: Iterable[str],
    reductions: Iterable[str],
    distance: RdmDistance,
) -> dict[str, Array]:
    chosen = choose(dump, layers, reductions)
    found = {".".join(output): dump.rdm(*output, distance=distance)[1] for output in chosen}
    return found if places is None else {name: rdm[np.ix_(places, places)] for name, rdm in found.items()}


def _read(path: Path) -> Array:
    try:
        if path.suffix.lower() == ".csv":
            return np.loadtxt(path, delimiter=",", ndmin=2)
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read '{printable(path)}': {files.reason(error)}") from error
    except (ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot read '{printable(path)}' as RDMs, .npy or .csv: {reason}") from error


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in files.read_text(path).splitlines() if line]
    except (OSError, UnicodeError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot read '{printable(path)}': {reason}") from error
