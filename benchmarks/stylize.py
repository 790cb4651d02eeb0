"""Seconds to the loss that pastiche reaches, both started from the same two pictures, in one run.

    python benchmarks/stylize.py CONTENT STYLE [--size 512] [--steps 500]

Both paint with the objective of the Gatys notebook. pastiche runs its `--steps`, then vggfeat its recipe `gatys` until
the picture that it would save is as good. Both are judged by the loss of the picture rounded to 8 bits, in float32,
with the pictures resized beforehand, so that neither is judged by how it resizes. Needs pastiche (extra `bench`).
"""

import argparse
import tempfile
import time
from pathlib import Path

from judge import Judge, of_area
from pastiche.pastiche import PasticheArtist, save_image

from vggfeat import read_picture, recipe, stylize, write_picture
from vggfeat.images import fit, resize


def resized(content: str, style: str, size: int, folder: Path) -> tuple[Path, Path]:
    """Both pictures as files: the content at `size`, the style of its area."""
    picture, manner = read_picture(content).rgb, read_picture(style).rgb
    height, width = fit(picture.shape[2], picture.shape[3], size)
    write_picture(folder / "content.png", resize(picture, height, width))
    write_picture(folder / "style.png", of_area(manner, height, width))
    return folder / "content.png", folder / "style.png"


def main() -> None:
    """Run both, print the loss to reach, the seconds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=500, help="pastiche's")
    parser.add_argument("--goal", type=float, help="the loss to reach, if pastiche's is known: it then runs 10 steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, style = resized(options.content, options.style, options.size, folder)
        judge = Judge(read_picture(content).rgb, read_picture(style).rgb)

        steps = options.steps if options.goal is None else 10
        artist = PasticheArtist(str(content), [str(style)], device="cpu")
        began = time.perf_counter()
        for _ in range(steps):
            artist.draw()
        theirs = (time.perf_counter() - began) / steps * options.steps
        save_image(artist.pastiche, folder / "pastiche.png")
        goal = judge(read_picture(folder / "pastiche.png").rgb) if options.goal is None else options.goal
        print(f"pastiche: {options.steps} steps in {theirs:.1f} s, saved at a loss of {goal:.4g}")

        began = time.perf_counter()
        judging = 0.0
        run = stylize(content, style, recipe("gatys", steps=60, step_decay=5.0), size=options.size)
        for progress in run:
            paused = time.perf_counter()
            good = progress.stage == progress.stages and progress.step % 5 == 0 and judge(progress.image) <= goal
            judging += time.perf_counter() - paused
            if good:
                break
        ours = time.perf_counter() - began - judging
        print(f"vggfeat: {ours:.1f} s, the same loss in 1/{theirs / ours:.1f} of the time")


if __name__ == "__main__":
    main()
