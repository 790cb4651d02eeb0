"""`vggfeat rsa`: compare the representational dissimilarity matrices (RDMs) of a dump's layers."""

import json
import math
from typing import TYPE_CHECKING, Any

import click

from ._options import arrays_options, result_option
from ._signals import exiting
from ._text import interval_text, print_table

if TYPE_CHECKING:
    from vggfeat.dumps.rsa import RsaResult


@click.command()
@click.argument("dump", type=click.Path())
@click.option(
    "--reference",
    metavar="FILE",
    type=click.Path(),
    help="Measured RDMs: .npy (N, N) or (subjects, N, N), or .csv of one.  [default: the layers of DUMP]",
)
@click.option("--ids", metavar="FILE", type=click.Path(), help="Ids of the reference's pictures in order, one a line.")
@arrays_options
@click.option(
    "--distance",
    type=click.Choice(["correlation", "euclidean", "cosine"]),
    default="correlation",
    help="Between the features of two pictures; euclidean is the mean squared difference.",
)
@click.option(
    "--method",
    type=click.Choice(["spearman", "tau-a", "cosine", "pearson", "whitened"]),
    default="spearman",
    help="Similarity of two RDMs.",
)
@click.option("--bootstrap", type=int, default=1000, metavar="N", help="Samples for the intervals.")
@click.option("--permutations", type=int, default=1000, metavar="N", help="Permutations for the p-values.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of both.")
@result_option
def command(dump: str, *, reference: str | None, ids: str | None, as_json: bool, **options: Any) -> None:
    """Compare the RDMs of the layers of DUMP: with measured ones (--reference), or with each other.

    With --reference: the similarity of each layer with its 95 % bootstrap interval, the p-value of a permutation test,
    and with several subjects the noise ceiling. The pictures of the reference are those of DUMP, in the order of its
    manifest, unless --ids names them.
    """
    from vggfeat.dumps.reading import open_dump
    from vggfeat.dumps.representations import explain, similarities

    opened = open_dump(dump)
    with exiting("interrupted"):
        if reference is None:
            names, matrix = similarities(
                opened, **{name: options[name] for name in ("layers", "reductions", "distance", "method")}
            )
            if as_json:
                click.echo(json.dumps({"method": options["method"], "arrays": names, "values": matrix.tolist()}))
            else:
                cells = [[name, *(f"{x:.4f}" for x in row)] for name, row in zip(names, matrix, strict=True)]
                print_table([options["method"], *names], cells)
            return
        result = explain(opened, reference, ids=ids, **options)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        _print(result)


def _print(result: "RsaResult") -> None:
    rows = [
        [
            score.name,
            f"{score.similarity.value:.4f}",
            interval_text(score.similarity.ends, ".4f"),
            "-" if math.isnan(score.p) else f"{score.p:.4f}",
        ]
        for score in result.scores
    ]
    print_table([f"{result.pictures} pictures", result.method, "95 % interval", "p"], rows)
    if result.ceiling is not None:
        click.echo(f"noise ceiling: {result.ceiling[0]:.4f} to {result.ceiling[1]:.4f}")
