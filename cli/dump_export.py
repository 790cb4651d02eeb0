"""`vggfeat dump-export`: convert a dump to another file format."""

from typing import Any

import click

from ._options import arrays_options
from ._signals import exiting


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--to", metavar="FORMAT", help="zarr, h5, mat, csv, ...  [default: by the output's ending]")
@click.option("-o", "--output", "target", required=True, type=click.Path(), help="The new file, or folder for zarr.")
@arrays_options
@click.option("--zarr-format", type=click.Choice(["2", "3"]), help="Version of zarr's format.  [default: 3]")
def command(dump: str, *, target: str, zarr_format: str | None, **options: Any) -> None:
    """Write the arrays of DUMP, their ids and run.json as zarr, HDF5, MATLAB, CSV, Parquet, safetensors or faiss.

    An array may have up to 2 GB in MATLAB's format and up to 16384 columns in CSV; h5 has no such limits. Existing
    files are not replaced. zarr, h5, mat and parquet need the extra `export`. faiss needs the extra `faiss`: it is a
    flat L2 index of one array, and the ids of its rows are in OUTPUT.json.
    """
    from vggfeat.dumps.export import export
    from vggfeat.dumps.reading import open_dump

    with exiting("interrupted: nothing is written"):
        version = None if zarr_format is None else 2 if zarr_format == "2" else 3
        export(open_dump(dump), target, zarr_format=version, **options)
    click.echo(target)
