"""What the pyramid of `vggfeat/transfer/optimise.py` is worth: the loss after some steps with it and without.

    python benchmarks/preconditioning.py [--size 112] [--steps 45]

Five pairs of bundled pictures, the recipe `default` at one size, in float32: steps cost the same both ways.
"""

import argparse
from pathlib import Path

from measuring import markdown
from torch import Tensor

from vggfeat import recipe, stylize
from vggfeat.transfer import optimise

ASSETS = Path(__file__).parents[1] / "assets/images"
PAIRS = (
    ("rocket", "mosaic"),
    ("coffee", "ink_wave"),
    ("chelsea", "stained_glass"),
    ("flower", "watercolour"),
    ("china", "swirls"),
)


def as_it_is(x: Tensor, *, wrap: bool = False) -> Tensor:  # noqa: ARG001 (the pyramid's signature)
    """The gradient itself: L-BFGS as it is known."""
    return x


def loss(content: str, style: str, size: int, steps: int) -> float:
    """The loss of the last step."""
    chosen = recipe("default", first_size=size, steps=steps)
    run = stylize(ASSETS / f"{content}.jpg", ASSETS / f"{style}.jpg", chosen, size=size, precision="float32")
    return [progress.losses["total"] for progress in run][-1]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=45)
    options = parser.parse_args()
    pyramid = optimise.precondition
    rows: list[list[str]] = []
    for content, style in PAIRS:
        optimise.precondition = pyramid
        ours = loss(content, style, options.size, options.steps)
        optimise.precondition = as_it_is
        plain = loss(content, style, options.size, options.steps)
        rows.append([f"{content} in {style}", f"{plain:.3g}", f"{ours:.3g}", f"{1 - ours / plain:.0%}"])
    print(markdown(["pair", "without", "with the pyramid", "lower by"], rows), end="")


if __name__ == "__main__":
    main()
