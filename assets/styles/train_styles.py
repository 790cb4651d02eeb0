"""Train the instant styles that ship with vggfeat: the style pictures of `assets/images`, on the photographs there.

    python assets/styles/train_styles.py [--steps 6000] [OUTPUT]

The first half of the steps compares shallow layers, which is cheap; all take about two hours of one core with AVX2.
Interrupt it at any time; the next call continues from the checkpoint. It may be given other `--steps`, if they are at
least as many as were taken: the learning rate falls over the last 40% of them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggfeat.transfer.styles.photographs import bundled_image
from vggfeat.transfer.styles.recipe import StyleRecipe
from vggfeat.transfer.styles.run import train_styles

NAMES = ("swirls", "autumn_oil", "stained_glass", "mosaic", "woodcut", "ink_wave", "watercolour")
LICENCE = "MIT, as vggfeat: trained on its own style pictures, and on photographs that assets/images/SOURCES.md names"

COMMON: Mapping[str, Any] = {
    "crop": 96,
    "style_size": 320,
    "style_weight": 4.0,
    "tv_weight": 0.2,
    "learning_rate": 3e-3,
    "full": 16,
    "half": 32,
    "quarter": 64,
    "blocks": 5,
    "evaluate_every": 50,
}

# Share of the steps after which a phase begins, and what differs in it.
PHASES: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (
        0.0,
        {
            "content_layers": {"relu1_2": 0.5, "relu3_1": 1.0},
            "style_layers": {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_1": 1.0},
        },
    ),
    (
        0.5,
        {
            "content_layers": {"relu1_2": 0.5, "relu3_3": 1.0},
            "style_layers": {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu4_1": 1.0},
        },
    ),
)


def main() -> None:
    """Train to the end, with a line for every evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).with_name("styles.safetensors"))
    parser.add_argument("--steps", type=int, default=6000)
    asked = parser.parse_args()
    starts = [round(share * asked.steps) for share, _ in PHASES]
    for (_, differing), stop in zip(PHASES, [*starts[1:], asked.steps], strict=True):
        recipe = StyleRecipe(**COMMON, **differing, steps=asked.steps)
        styles = {name: bundled_image(name) for name in NAMES}
        run = train_styles(styles, asked.output, recipe, licence=LICENCE, resume=True, device="cpu")
        if run.step >= stop:
            continue
        for progress in run:
            if progress.objective is not None:
                terms = ", ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
                print(
                    f"step {progress.step}: objective {progress.objective:.4f} ({terms}); {progress.seconds:.0f} s",
                    flush=True,
                )
            if progress.step == stop < asked.steps:
                run.save()
                break


if __name__ == "__main__":
    main()
