"""Exports a dump to another file format. Arrays are streamed if the format allows it, and values are never rounded.

If the format has a place for them, the ids, paths and sha256 of the pictures are written too, the columns of the source
as text, and run.json as text.
Arrays have the names of `open_dump`, such as `relu3_3.mean`. If pictures differ in size and the reduction keeps the
size, each size is an array of its own, `relu3_3.full.240x320` (height x width), with its ids in `id.240x320`.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import compress, count
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.protocols import DumpLike, FeatureRows
from vggfeat.dumps.sources import import_parquet, printable
from vggfeat.errors import InputError, RecipeError, imported, near, one_of

ExportFormat = Literal["zarr", "h5", "mat", "csv", "parquet", "safetensors", "faiss"]
ENDINGS: Mapping[str, ExportFormat] = {**{f".{form}": form for form in get_args(ExportFormat)}, ".hdf5": "h5"}
ZarrFormat = Literal[2, 3]

# Approximate bytes in memory at a time, and in one chunk of a zarr array.
BATCH_BYTES = 64 * 2**20
CHUNK_BYTES = 8 * 2**20

# The limit of spreadsheets, and of many CSV readers.
_MOST_COLUMNS = 16384

# The limits of a MATLAB 5 variable and of a safetensors header, in bytes.
MAT_BYTES = 2**31 - 1
SAFETENSORS_HEADER = 100_000_000

# Imported when needed: the extra `export`, and `faiss` for faiss.
LIBRARIES = {"zarr": "zarr", "h5": "h5py", "mat": "scipy.io", "parquet": "pyarrow", "faiss": "faiss"}


def export(
    dump: DumpLike,
    target: str | os.PathLike[str],
    to: ExportFormat | None = None,
    *,
    layers: Iterable[str] = (),
    reductions: Iterable[str] = (),
    zarr_format: ZarrFormat | None = None,
) -> Path:
    """Write the arrays of `dump` to the new file, or zarr folder, `target`. Returns its path.

    Args:
        dump: a complete dump.
        target: must not exist, and must not be inside the dump. It appears when it is complete.
        to: the format; None chooses it by the ending of `target`. `zarr`, `h5`, `mat` (MATLAB 5: 2 GB an array, float16
            as single), `csv` (one column for each value, at most 16384, and run.json in `target.json`), `parquet` (one
            list column for each array), `safetensors` or `faiss` (a flat L2 index of one array, its rows as they are
            stored, with the ids and run.json in `target.json`).
        layers: names or globs of the layers to export; all if empty.
        reductions: names or globs of the reductions to export; all if empty.
        zarr_format: the version of zarr's format, 2 or 3; None is 3.

    Raises `StoreError` if `target` exists or cannot be written, `InputError` if a library is missing, `RecipeError`
    if the dump does not hold the arrays or the format cannot store them.
    """
    target = Path(target)
    if to is None and (to := ENDINGS.get(target.suffix.lower())) is None:
        raise RecipeError(f"'{printable(target)}' does not name a format: end it in {', '.join(ENDINGS)}, or name one")
    one_of("format", to, get_args(ExportFormat), kind=RecipeError)
    if zarr_format is not None and to != "zarr":
        raise RecipeError(f"zarr_format (--zarr-format) is for zarr, and '{printable(target)}' is {to}")
    if zarr_format not in (None, *get_args(ZarrFormat)):
        raise RecipeError(f"unknown version {zarr_format} of zarr's format: known are 2 and 3")
    sidecar = target.with_name(f"{target.name}.json") if to in ("csv", "faiss") else None
    for path in filter(None, (target, sidecar)):
        _check_target(path, dump.path)
    library = _import(to)
    content = _Content.of(dump, choose(dump, layers, reductions), zarr_format or 3)
    with _creating(target) as unfinished:
        WRITERS[to](content, unfinished, library)
        if sidecar is not None:
            with _creating(sidecar) as unfinished_sidecar:
                unfinished_sidecar.write_text(content.run if to == "csv" else content.about(), "utf-8")
    return target


@contextmanager
def _creating(target: Path) -> Generator[Path]:
    """Yield a temporary path to write a file or folder to; at the end, sync it and rename it to `target`.

    Unlike `files.replacing`, it never replaces anything, and it can create the folder that zarr writes.
    Converts OSError to StoreError.
    """
    temporary = target.with_name(f"{files.PREFIX}{secrets.token_hex(8)}")
    try:
        yield temporary
        for path in (temporary, *temporary.rglob("*")):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if os.path.lexists(target):
            raise StoreError(f"'{printable(target)}' was created by another process meanwhile: it is left as it is")
        temporary.rename(target)
        with suppress(OSError):  # a folder that cannot be opened cannot be synced
            files.sync_folder(target.parent)
    except OSError as error:
        reason = "no space left on device" if error.errno == errno.ENOSPC else files.reason(error)
        raise StoreError(f"cannot write '{printable(target)}': {reason}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def choose(dump: DumpLike, layers: Iterable[str] = (), reductions: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The (layer, reduction) pairs of a dump that match names or globs.

    Raises `RecipeError` for a pattern that matches nothing, and if no array matches.
    """
    outputs = list(dump.outputs)
    for place, what, patterns in ((0, "layer", list(layers)), (1, "reduction", list(reductions))):
        known = dict.fromkeys(output[place] for output in dump.outputs)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise RecipeError(f"no {what} '{pattern}' in the dump: {near(pattern, known)}")
        if patterns:
            outputs = [output for output in outputs if any(fnmatchcase(output[place], word) for word in patterns)]
    if not outputs:
        held = ", ".join(".".join(output) for output in dump.outputs)
        raise RecipeError(
            f"no array of these layers has these reductions: the dump holds {held}"
            if held
            else "the dump holds only statistics"
        )
    return outputs


@dataclass(frozen=True, slots=True, eq=False)
class _Content:
    """The content of an export: run.json as text, columns of text, and arrays."""

    run: str
    texts: Mapping[str, Sequence[str]]
    arrays: Mapping[str, FeatureRows]
    zarr_format: ZarrFormat

    @classmethod
    def of(cls, dump: DumpLike, outputs: Iterable[tuple[str, str]], zarr_format: ZarrFormat) -> "_Content":
        names = {name: name for name in _TEXTS} | _names(dump, outputs := list(outputs))
        texts: dict[str, Sequence[str]] = {
            written: list(compress(dump.manifest.texts(name), dump.manifest.ok.tolist()))
            for name, written in names.items()
        }
        arrays: dict[str, FeatureRows] = {}
        for output in outputs:
            name, array = ".".join(output), dump[output]
            if array.one_shape:
                arrays[name] = array
                continue
            for height, width in array.sizes:
                arrays[f"{name}.{height}x{width}"] = part = array.of_size(height, width)
                texts[f"id.{height}x{width}"] = part.ids
        return cls(json.dumps(dump.run), texts, arrays, zarr_format)

    def require_one_shape(self, form: str) -> None:
        """Raise `RecipeError` if an array is split by size, which a table cannot store."""
        if split := [name for name in self.arrays if name not in {_output(array) for array in self.arrays.values()}]:
            raise RecipeError(
                f"the rows of {split[0].rpartition('.')[0]} differ in shape, which {form} cannot store: "
                "choose other reductions with --reduce, or zarr or h5"
            )

    def about(self) -> str:
        """The ids of the rows, the names of the arrays and run.json, as JSON."""
        return json.dumps({"arrays": list(self.arrays), "ids": list(self.texts["id"]), "run": json.loads(self.run)})

    def batches(self) -> Iterator[tuple[slice, list[npt.NDArray[Any]]]]:
        """The rows of all arrays in batches, each array as (N, values)."""
        width = sum(_row_bytes(array) for array in self.arrays.values())
        rows, step = len(self.texts["id"]), max(1, BATCH_BYTES // max(1, width))
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            yield part, [array[part].reshape(part.stop - start, -1) for array in self.arrays.values()]


_TEXTS = ("id", "path", "sha256")


def _names(dump: DumpLike, outputs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{column of the source: its name in the export}: without characters that a format gives a meaning, and unique."""
    taken = {*_TEXTS, "run", *(".".join(output) for output in outputs)}
    taken |= {name.replace(".", "_") for name in taken}
    found: dict[str, str] = {}
    for column in dump.manifest.columns:
        plain = re.sub(r"\W", "_", column, flags=re.ASCII)
        plain = plain if plain[0].isalpha() else f"source{plain if plain[0] == '_' else f'_{plain}'}"
        name = next(name for number in count(1) if (name := plain if number == 1 else f"{plain}_{number}") not in taken)
        taken.add(name)
        found[column] = name
    return found


def _zarr(content: _Content, path: Path, zarr: Any) -> None:
    attributes = {"run": json.loads(content.run)}
    group = zarr.open_group(str(path), mode="w-", zarr_format=content.zarr_format, attributes=attributes)
    for name, texts in content.texts.items():
        chunk = (max(1, min(len(texts), 65536)),)
        group.create_array(name, shape=(len(texts),), dtype="string", chunks=chunk)[:] = np.array(texts, dtype=object)
    for name, array in content.arrays.items():
        rows = max(1, min(len(array), CHUNK_BYTES // _row_bytes(array)))
        made = group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=(rows, *array.shape[1:]))
        for part, values in _parts(array, rows):
            made[part] = values


def _h5(content: _Content, path: Path, h5py: Any) -> None:
    with h5py.File(path, "x") as file:
        # As a dataset: an attribute is limited to 64 kB.
        file.create_dataset("run", data=content.run, dtype=h5py.string_dtype())
        for name, texts in content.texts.items():
            file.create_dataset(name, data=np.array(texts, dtype=object), dtype=h5py.string_dtype())
        for name, array in content.arrays.items():
            made = file.create_dataset(name, shape=array.shape, dtype=array.dtype)
            for part, values in _parts(array):
                made[part] = values


def _mat(content: _Content, path: Path, scipy_io: Any) -> None:
    for name, array in content.arrays.items():
        if prod(array.shape) * 4 > MAT_BYTES:
            raise RecipeError(
                f"{name} has {prod(array.shape) * 4 / 1e9:.1f} GB and a .mat file holds at most 2 GB an array: "
                "take h5, which MATLAB's h5read reads, or fewer layers or another reduction"
            )
    variables = _Variables(content)
    with path.open("xb") as file:
        scipy_io.savemat(file, variables, appendmat=False, oned_as="column")


class _Variables(Mapping[str, Any]):
    """The variables of a .mat file. Each is read from the dump when `savemat` writes it."""

    def __init__(self, content: _Content) -> None:
        self._content = content
        # MATLAB's names have no dots.
        self._names = {name.replace(".", "_"): name for name in ("run", *content.texts, *content.arrays)}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, key: str) -> Any:
        name = self._names[key]
        if name == "run":
            return self._content.run
        if name in self._content.texts:
            return np.array(self._content.texts[name], dtype=object)
        array = self._content.arrays[name]
        return array.to_numpy().astype(np.float32, copy=False)  # MATLAB has no half precision


def _csv(content: _Content, path: Path, _: object) -> None:
    content.require_one_shape("csv")
    names = [
        f"{name}.{'.'.join(map(str, place))}"
        for name, array in content.arrays.items()
        for place in np.ndindex(array.shape[1:] if prod(array.shape[1:]) <= _MOST_COLUMNS else (0,))
    ]
    columns = sum(prod(array.shape[1:]) for array in content.arrays.values())
    if columns > _MOST_COLUMNS:
        raise RecipeError(
            f"that would be {columns} columns, and csv has at most {_MOST_COLUMNS}: "
            "choose fewer with --layer and --reduce, or another format"
        )
    with path.open("x", encoding="utf-8", newline="") as file:
        table = files.CsvWriter(file)
        table.writerow([*content.texts, *names])
        for part, arrays in content.batches():
            texts = [column[part] for column in content.texts.values()]
            # The shortest decimals that parse to the same number.
            values = np.concatenate([array.astype(str) for array in arrays], axis=1).tolist()
            for *words, numbers in zip(*texts, values, strict=True):
                table.writerow([*words, *numbers])


def _parquet(content: _Content, path: Path, arrow: Any) -> None:
    content.require_one_shape("parquet")
    parquet = import_parquet("writing parquet")
    fields = [arrow.field(name, arrow.string()) for name in content.texts]
    for name, array in content.arrays.items():
        kind = arrow.list_(arrow.from_numpy_dtype(array.dtype), prod(array.shape[1:]))
        fields.append(arrow.field(name, kind, metadata={"shape": json.dumps(array.shape[1:])}))
    schema = arrow.schema(fields, metadata={"vggfeat.run": content.run})
    with parquet.ParquetWriter(path, schema) as writer:
        for part, arrays in content.batches():
            columns = [arrow.array(column[part], arrow.string()) for column in content.texts.values()]
            columns += [
                arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), values.shape[1])
                for values in arrays
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _safetensors(content: _Content, path: Path, _: object) -> None:
    # The safetensors library needs all tensors in memory.
    codes = {"float32": "F32", "float16": "F16"}
    texts = {name: json.dumps(list(column)) for name, column in content.texts.items()}
    header: dict[str, Any] = {"__metadata__": {"run": content.run, **texts}}
    place = 0
    for name, array in content.arrays.items():
        end = place + prod(array.shape) * array.dtype.itemsize
        header[name] = {"dtype": codes[array.dtype.name], "shape": array.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # aligns the values
    if len(text) > SAFETENSORS_HEADER:
        raise RecipeError(
            f"{len(content.texts['id'])} ids and paths do not fit into the header of a safetensors file, "
            "which has at most 100 MB: take zarr, h5 or parquet"
        )
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in content.arrays.values():
            for _, values in _parts(array):
                file.write(np.ascontiguousarray(values, array.dtype.newbyteorder("<")).data)


def _faiss(content: _Content, path: Path, faiss: Any) -> None:
    content.require_one_shape("faiss")
    if len(content.arrays) > 1:
        raise RecipeError(
            f"a faiss index holds one array, not {', '.join(content.arrays)}: choose with --layer and --reduce"
        )
    [array] = content.arrays.values()
    index = faiss.IndexFlatL2(prod(array.shape[1:]))
    for _, values in _parts(array):
        rows = np.ascontiguousarray(values.reshape(len(values), -1), np.float32)
        if not np.isfinite(rows).all():
            raise RecipeError(
                f"{_output(array)} holds infinite or NaN values, which a faiss index would return anywhere"
            )
        index.add(rows)
    faiss.write_index(index, str(path))


WRITERS: Mapping[ExportFormat, Callable[[_Content, Path, Any], None]] = {
    "zarr": _zarr,
    "h5": _h5,
    "mat": _mat,
    "csv": _csv,
    "parquet": _parquet,
    "safetensors": _safetensors,
    "faiss": _faiss,
}


def _parts(array: FeatureRows, multiple: int = 1) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """The rows in batches of about `BATCH_BYTES`, each a multiple of `multiple` rows."""
    step = max(1, BATCH_BYTES // _row_bytes(array) // multiple) * multiple
    for start in range(0, len(array), step):
        part = slice(start, min(start + step, len(array)))
        yield part, array[part]


def _row_bytes(array: FeatureRows) -> int:
    return prod(array.shape[1:]) * array.dtype.itemsize


def _output(array: FeatureRows) -> str:
    return f"{array.layer}.{array.reduction}"


def _check_target(target: Path, dump: Path) -> None:
    if os.path.lexists(target):
        raise StoreError(f"'{printable(target)}' exists: name another, files are never replaced")
    parent = target.parent.resolve()
    if not parent.is_dir():
        raise StoreError(f"cannot write '{printable(target)}': no such folder '{printable(parent)}'")
    if parent.is_relative_to(dump.resolve()):
        raise StoreError(f"'{printable(target)}' is inside the dump: name a path outside it")


def _import(form: ExportFormat) -> Any:
    if form not in LIBRARIES:
        return None
    package = LIBRARIES[form].partition(".")[0]
    extra = "faiss" if form == "faiss" else "export"
    return imported(LIBRARIES[form], f"writing {form} needs {package}", extra, kind=InputError)
