"""`vggfeat dump-export`: convert a dump to another file format."""

from typing import get_args

import click

from vggfeat.errors import RecipeError

from ._options import arrays_options
from ._signals import exiting

_ENDINGS = {
    ".zarr": "zarr",
    ".h5": "h5",
    ".hdf5": "h5",
    ".mat": "mat",
    ".csv": "csv",
    ".parquet": "parquet",
    ".safetensors": "safetensors",
    ".faiss": "faiss",
}


@click.command()
@click.argument("dump", type=click.Path())
@click.option(
    "--to", type=click.Choice(list(dict.fromkeys(_ENDINGS.values()))), help="Format.  [default: by the output's ending]"
)
@click.option("-o", "--output", "target", required=True, type=click.Path(), help="The new file, or folder for zarr.")
@arrays_options
@click.option("--zarr-format", type=click.Choice(["2", "3"]), help="Version of zarr's format.  [default: 3]")
def command(
    dump: str,
    *,
    to: str | None,
    target: str,
    layers: list[str],
    reductions: list[str],
    zarr_format: str | None,
) -> None:
    """Write the arrays of DUMP, their ids and run.json as zarr, HDF5, MATLAB, CSV, Parquet, safetensors or faiss.

    An array may have up to 2 GB in MATLAB's format and up to 16384 columns in CSV; h5 has no such limits. Existing
    files are not replaced. zarr, h5, mat and parquet need the extra `export`. faiss needs the extra `faiss`: it is a
    flat L2 index of one array, and the ids of its rows are in OUTPUT.json.
    """
    ending = target[target.rfind(".") :].lower()
    form = to or _ENDINGS.get(ending)
    if form is None:
        raise RecipeError(f"'{target}' does not name a format: end it in {', '.join(_ENDINGS)}, or pass --to")
    if zarr_format is not None and form != "zarr":
        raise RecipeError(f"--zarr-format is for zarr, and '{target}' is {form}")
    from vggfeat.dumps.export import Format, export
    from vggfeat.dumps.reading import open_dump

    known = {word: word for word in get_args(Format)}
    with exiting("interrupted: nothing is written"):
        export(
            open_dump(dump),
            target,
            known[form],
            layers=layers,
            reductions=reductions,
            zarr_format=2 if zarr_format == "2" else 3,
        )
    click.echo(target)
