"""Train one file of instant styles: the seven style pictures of `assets/images`, on the photographs beside them.

    python assets/styles/train_styles.py [--steps 4000] [OUTPUT]

Interrupt it at any time; the next call continues from the checkpoint. It may be given other `--steps`, if they are at
least as many as were taken: the learning rate falls over the last 40% of them.
"""

import argparse
from pathlib import Path

from vggfeat.transfer.styles.photographs import bundled_image
from vggfeat.transfer.styles.recipe import StyleRecipe
from vggfeat.transfer.styles.run import train_styles

NAMES = ("swirls", "autumn_oil", "stained_glass", "mosaic", "woodcut", "ink_wave", "watercolour")
LICENCE = "MIT, as vggfeat: trained on its own style pictures, and on photographs that assets/images/SOURCES.md names"


def main() -> None:
    """Train to the end, with a line for every evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).with_name("styles.safetensors"))
    parser.add_argument("--steps", type=int, default=4000)
    asked = parser.parse_args()
    recipe = StyleRecipe(
        content_layers={"relu1_2": 1.0, "relu3_3": 1.0},
        style_layers={"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu4_1": 1.0},
        style_weight=2.0,
        steps=asked.steps,
        evaluate_every=50,
    )
    styles = {name: bundled_image(name) for name in NAMES}
    for progress in train_styles(styles, asked.output, recipe, licence=LICENCE, resume=True, device="cpu"):
        if progress.objective is not None:
            terms = ", ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
            print(f"step {progress.step}: objective {progress.objective:.4f} ({terms}); {progress.seconds:.0f} s")


if __name__ == "__main__":
    main()
