"""`vggfeat match`: the places of two pictures that a layer finds alike."""

from pathlib import Path
from typing import Any

import click

from ._files import check_spares, check_text_file, unused, write_text_file
from ._networks import chosen_network, network_option


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("-l", "--layer", default="relu4_2", show_default=True, help="The layer to match by.")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="PNG, JPEG, WebP or TIFF.  [default: A-B-match.png]"
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(),
    metavar="FILE",
    help="Write the matches and what they depend on; - prints.",
)
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write x_a, y_a, x_b, y_b, score; - prints.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the N surest.  [default: all]")
@click.option(
    "--lines", type=click.IntRange(0), default=120, show_default=True, help="How many to join in the picture."
)
@click.option(
    "--ratio", type=float, default=0.95, show_default=True, help="Of the ratio test; 1 keeps all mutual neighbours."
)
@click.option("--refine/--no-refine", default=True, show_default=True, help="Go on through finer layers.")
@network_option
@click.option("--weights", default="default", show_default=True, help="A name of `vggfeat weights`, or a file.")
@click.option(
    "--size",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Long side at which pictures are seen; never enlarges.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    default="float32",
    show_default=True,
    help="Of the network.",
)
def command(
    a: str,
    b: str,
    *,
    output: str | None,
    json_file: str | None,
    csv_file: str | None,
    limit: int | None,
    lines: int,
    **options: Any,  # noqa: ANN401 (those of vggfeat.match)
) -> None:
    """Match pictures A and B: the places that a layer finds alike, joined by lines.

    Coordinates are x, y in pixels of A and B as they came; the centre of the first pixel is 0, 0. The picture is
    left out where only --json or --csv is asked for.
    """
    from vggfeat.explore.matching import match
    from vggfeat.explore.pages.matches import side_by_side
    from vggfeat.pictures import images, sources

    wanted = {form: name for form, name in (("json", json_file), ("csv", csv_file)) if name}
    target = Path(output) if output else None if wanted else unused(Path(f"{Path(a).stem}-{Path(b).stem}-match.png"))
    _check_outputs(target, wanted, (a, b))
    pictures = sources.read(a), sources.read(b)
    options["network"] = chosen_network(options["network"], options["weights"])
    found = match(a, b, **options)
    if limit is not None:
        found = found.best(limit)
    for form, name in wanted.items():
        text = found.as_json() if form == "json" else found.as_csv()
        if name == "-":
            click.echo(text, nl=False)
        else:
            write_text_file(Path(name), text)
    if target is not None:
        images.write_picture(target, side_by_side(found, *pictures, lines=lines))
    if "-" not in wanted.values():
        click.echo(f"{len(found)} matches" + (f", drawn in {target}" if target else ""))


def _check_outputs(target: Path | None, wanted: dict[str, str], sources: tuple[str, str]) -> None:
    from vggfeat.pictures import images

    files = [Path(name) for name in wanted.values() if name != "-"]
    for path in files:
        check_text_file(path)
    if target is not None:
        images.check_writable(target)
        files.append(target)
    for path in files:
        check_spares(path, sources)
    if len({path.resolve() for path in files}) < len(files) or list(wanted.values()).count("-") > 1:
        raise click.UsageError("two outputs cannot go to one place: give --json, --csv and -o different files")
