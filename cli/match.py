"""`vggfeat match`: find corresponding points of two pictures."""

from pathlib import Path
from typing import Any

import click

from ._options import (
    ORDER_FLAGS,
    chosen_network,
    csv_option,
    device_option,
    json_option,
    megapixels_option,
    network_option,
    output_option,
    precision_option,
    preprocessing_options,
    size_option,
    weights_option,
)
from ._outputs import check_text_outputs, chosen_output, save_picture, write_texts


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("-l", "--layer", default="relu4_2", help="The layer whose features are matched.")
@output_option("A-B-match.png")
@json_option
@csv_option
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Keep the N best matches.  [default: all]")
@click.option("--lines", type=click.IntRange(0), default=120, help="Matches to draw.")
@click.option("--ratio", type=float, default=0.95, help="Threshold of the ratio test; 1 keeps all mutual neighbours.")
@click.option("--refine/--no-refine", default=True, help="Refine positions through finer layers.")
@network_option
@weights_option
@preprocessing_options(*ORDER_FLAGS)
@size_option(1024, "Long side to which pictures are shrunk before matching.")
@megapixels_option
@device_option
@precision_option()
def command(
    a: str,
    b: str,
    *,
    output: str | None,
    json_file: str | None,
    csv_file: str | None,
    limit: int | None,
    lines: int,
    **options: Any,
) -> None:
    """Find points of picture A that correspond to points of B, and draw them joined by lines.

    Coordinates are x, y in pixels of the original pictures; the centre of the first pixel is 0, 0. With --json or
    --csv, the picture is drawn only if -o is given.
    """
    from vggfeat.explore.matching import match
    from vggfeat.explore.pages.matches import side_by_side
    from vggfeat.pictures import images, sources

    texts = {option: name for option, name in (("--json", json_file), ("--csv", csv_file)) if name}
    default = f"{Path(a).stem}-{Path(b).stem}-match.png"
    target = None if texts and not output else chosen_output(output, default)
    if target is not None:
        images.check_writable(target)
    check_text_outputs(texts, [] if target is None else [("the output", target)], (a, b))
    pictures = sources.read(a), sources.read(b)
    options["network"] = chosen_network(options)
    found = match(a, b, **options)
    found = found if limit is None else found.best(limit)
    free = write_texts(texts, {"--json": found.as_json, "--csv": found.as_csv})
    if target is not None:
        save_picture(target, side_by_side(found, *pictures, lines=lines))
    if free:
        click.echo(f"{len(found)} matches" + (f", drawn in {target}" if target else ""))
