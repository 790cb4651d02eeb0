"""Train a tiny VGG on scikit-learn's digits, and draw what its layers have learnt.

    python examples/digits.py --out digits      # under a minute on two cores

`three.png` and `eight.png` show every channel of three layers for a three and an eight. The script lists the channels
of the last layer by the digit that activates them most, over held-out pictures. `vggfeat show`, `dump` and
`stylize` accept the file `digits/run/best.safetensors` as `--weights`.
"""

import argparse
from pathlib import Path

import torch

import vggfeat
from vggfeat.explore import view
from vggfeat.explore.pages.layers import sheet
from vggfeat.pictures import images
from vggfeat.training.data import load_data

NETWORK = "16,16,M,32,32,M,64"
LAST = "relu3_1"


def main() -> None:
    """Train, draw the layers, list the channels."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("digits"))
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()

    recipe = vggfeat.TrainingRecipe(network=NETWORK, batch_norm=True, epochs=options.epochs, learning_rate=3e-3)
    for progress in vggfeat.train("digits", options.out / "run", recipe):
        if progress.evaluation:
            print(f"epoch {progress.epoch}: loss {progress.loss:.3f}, held out {progress.evaluation.accuracy:.1%}")
    best = options.out / "run" / "best.safetensors"

    held_out = load_data("digits", held_out=recipe.held_out, seed=recipe.seed).held_out
    assert held_out.kept is not None  # noqa: S101 (digits always are)
    pictures = held_out.kept.float() / 255
    for name, digit in (("three", 3), ("eight", 8)):
        picture = pictures[held_out.labels == digit][:1]
        seen = view.inspect(picture, f"relu1_2,relu2_2,{LAST}", network="auto", weights=best)
        images.write_picture(options.out / f"{name}.png", sheet(seen))

    extract = vggfeat.FeatureExtractor("auto", LAST, weights=best)
    strength = extract(pictures)[LAST].mean((2, 3))
    of_digits = torch.stack([strength[held_out.labels == digit].mean(0) for digit in range(10)])
    print(f"channels of {LAST} by the digit that activates them most:")
    for digit in range(10):
        channels = (of_digits.argmax(0) == digit).nonzero().flatten().tolist()
        print(f"{digit}: {', '.join(map(str, channels)) or 'none'}")


if __name__ == "__main__":
    main()
