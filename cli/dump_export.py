"""`vggfeat dump-export`: a dump as another kind of file."""

from typing import get_args

import click

from vggfeat.errors import RecipeError

from ._progress import terminable

_ENDINGS = {
    ".zarr": "zarr",
    ".h5": "h5",
    ".hdf5": "h5",
    ".mat": "mat",
    ".csv": "csv",
    ".parquet": "parquet",
    ".safetensors": "safetensors",
}


@click.command()
@click.argument("dump", type=click.Path())
@click.option(
    "--to",
    type=click.Choice(list(dict.fromkeys(_ENDINGS.values()))),
    help="[default: by TARGET's ending]",
)
@click.option(
    "-o", "--output", "target", required=True, type=click.Path(), help="A file, or zarr's folder, to be made."
)
@click.option("--layer", "layers", default="", metavar="NAME,...", help="Names or globs.  [default: all]")
@click.option("--reduce", "reductions", default="", metavar="WORD,...", help="Reductions.  [default: all]")
def command(dump: str, *, to: str | None, target: str, layers: str, reductions: str) -> None:
    """Write arrays of DUMP, with their ids and run.json, as zarr, HDF5, MATLAB, CSV, Parquet or safetensors.

    MATLAB's format has at most 2 GB an array, and CSV gets at most 16384 columns; for more there is h5. Nothing is
    replaced. zarr, h5, mat and parquet need the extra `export`.
    """
    ending = target[target.rfind(".") :].lower()
    form = to or _ENDINGS.get(ending)
    if form is None:
        raise RecipeError(f"'{target}' does not say what it should be: end it in {', '.join(_ENDINGS)}, or pass --to")
    from vggfeat.dumps.export import Format, export
    from vggfeat.dumps.reading import open_dump

    known = {word: word for word in get_args(Format)}
    with terminable("interrupted: nothing is written"):
        export(open_dump(dump), target, known[form], layers=_words(layers), reductions=_words(reductions))
    click.echo(target)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
