"""Fine-tune the bundled VGG-16: tell photographs from paintings, a handful of pictures each.

    python examples/fine_tune.py --out tuned

Crops of the bundled pictures become a folder of two classes. Whole pictures are held out, so training and evaluation
share no picture. The first four blocks keep their ImageNet weights; the fifth and a new linear layer are trained. The
result loads wherever vggfeat takes weights.
"""

import argparse
from pathlib import Path

import torch

import vggfeat
from vggfeat.pictures import images

PICTURES = Path(__file__).resolve().parent.parent / "assets" / "images"
CLASSES = {
    "painting": ["ink_wave", "mosaic", "stained_glass", "swirls", "watercolour", "autumn_oil", "woodcut"],
    "photograph": ["astronaut", "chelsea", "flower", "rocket", "china", "coffee"],
}
HELD_OUT = {"autumn_oil", "woodcut", "china", "coffee"}
CROP = 96


def write_crops(folder: Path, count: int) -> None:
    """Write `count` random crops of each picture as `folder/train/CLASS/*.png` and `folder/val/CLASS/*.png`."""
    generator = torch.Generator().manual_seed(0)
    for name, pictures in CLASSES.items():
        for picture in pictures:
            place = folder / ("val" if picture in HELD_OUT else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            rgb = images.flatten(images.read_picture(PICTURES / f"{picture}.jpg"))
            rgb = images.resize(rgb, *images.fit(*rgb.shape[2:], 320))
            for number in range(count):
                top, left = (
                    int(torch.randint(0, length - CROP + 1, (1,), generator=generator)) for length in rgb.shape[2:]
                )
                crop = rgb[:, :, top : top + CROP, left : left + CROP]
                vggfeat.write_picture(place / f"{picture}-{number:02}.png", crop)


def main() -> None:
    """Make the folder, tune, classify two pictures that were held out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tuned"))
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    write_crops(options.out / "pictures", options.crops)
    recipe = vggfeat.TrainingRecipe(
        network="vgg16",
        source="imagenet1k_v1",
        freeze="block1-4",
        size=96,
        epochs=options.epochs,
        batch_size=16,
        learning_rate=1e-4,
        warmup=0.5,
    )
    run = vggfeat.train(options.out / "pictures", options.out / "run", recipe)
    for progress in run:
        if progress.evaluation:
            print(f"epoch {progress.epoch}: loss {progress.loss:.3f}, held out {progress.evaluation.accuracy:.1%}")

    best = options.out / "run" / "best.safetensors"
    classify = vggfeat.Classifier(weights=best)
    for picture in ("woodcut", "china"):
        likeliest = classify(PICTURES / f"{picture}.jpg")[0]
        print(f"{picture}: {likeliest.name} ({likeliest.probability:.0%})")

    extract = vggfeat.FeatureExtractor("auto", "relu5_3", weights=best)
    print(f"relu5_3 of the tuned network: {tuple(extract(torch.rand(1, 3, 96, 96))['relu5_3'].shape)}")


if __name__ == "__main__":
    main()
