"""A linear probe: dump VGG features of handwritten digits, and train scikit-learn's logistic regression on them.

Raw pixels and each layer's features, averaged over the picture, are given the same half of the digits to learn from,
and are judged by the other half. Needs scikit-learn, which brings the digits: 1797 pictures of 8x8 pixels.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vggfeat

SEED = 0


def write_pictures(pixels: np.ndarray, folder: Path) -> Path:
    """Save (N, 8, 8) digits as files, and a list of them that names each by its number; return the list."""
    listed = folder / "digits.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "path"])
        for number, digit in enumerate(pixels):
            grey = np.rint(digit * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"{number:05}.png")
            rows.writerow([number, f"{number:05}.png"])
    return listed


def accuracy(features: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> float:
    """Share of the held-out digits that a logistic regression on the others names correctly."""
    known = np.setdiff1d(np.arange(len(labels)), held_out)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(features[known], labels[known]).score(features[held_out], labels[held_out])


def main() -> None:
    """Dump, train on pixels and on each layer, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1797)
    parser.add_argument("--out", type=Path, help="folder that keeps the dump; a second run finds it done")
    options = parser.parse_args()
    digits = load_digits()
    images, labels = digits.images[: options.pictures], digits.target[: options.pictures]
    _, held_out = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=SEED, stratify=labels)
    with tempfile.TemporaryDirectory() as name:
        folder = options.out or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        listed = write_pictures(images, folder)
        dump = vggfeat.dump(listed, folder / "features", layers="relu2_2,relu3_3,relu4_3", reduce="mean", resize=64)
        print(f"{len(dump)} digits, {len(held_out)} of them held out")
        print(f"{'raw pixels':<16} {accuracy(images.reshape(len(images), -1), labels, held_out):.4f}")
        for layer in dump.layers:
            print(f"{layer:<16} {accuracy(np.asarray(dump[layer]), labels, held_out):.4f}")


if __name__ == "__main__":
    main()
