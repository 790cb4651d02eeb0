"""`vggfeat search`: find the pictures of a dump that are most similar to others."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import array_option, device_option, result_option
from ._outputs import picture_output, save_picture
from ._progress import tell
from ._signals import exiting
from ._text import escaped, print_table

if TYPE_CHECKING:
    from vggfeat.dumps.search import SearchResult


@click.command()
@click.argument("dump", type=click.Path())
@click.argument("queries", metavar="QUERY...", nargs=-1, required=True)
@array_option
@click.option("--top", type=click.IntRange(1), default=10, metavar="N", help="Neighbours of each query.")
@click.option("--metric", type=click.Choice(["cosine", "l2"]), default="cosine", help="Distance between features.")
@result_option
@click.option("-o", "--output", type=click.Path(), help="Also draw a contact sheet: PNG, JPEG, WebP or TIFF.")
@device_option
def command(
    dump: str, queries: tuple[str, ...], *, array: str | None, as_json: bool, output: str | None, **options: Any
) -> None:
    """Find the pictures of DUMP that are most similar to each QUERY: a picture file, or an id of the dump.

    The search is exact. A picture of the dump is not its own neighbour. A QUERY that is the id of one picture and the
    file name of another must be written ./NAME to mean the file.
    """
    from vggfeat.dumps.reading import open_dump

    opened = open_dump(dump)
    target = None if output is None else picture_output(output, "", queries)
    with exiting("interrupted: nothing is written"):
        result = opened.search(queries, array, **options)
        if target is not None:
            from vggfeat.explore.pages.neighbours import sheet

            save_picture(target, sheet(opened, result, title=f"'{Path(dump).resolve().name}'"))
    if result.left_out:
        tell(f"left out, for infinite or NaN features: {len(result.left_out)} pictures")
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        _print(result)


def _print(result: "SearchResult") -> None:
    rows = [
        [escaped(one.query), f"{distance:.6f}", escaped(name)]
        for one in result
        for name, distance in zip(one.ids, one.distances.tolist(), strict=True)
    ]
    print_table(["query", f"{result.metric} distance", "picture"], rows)
