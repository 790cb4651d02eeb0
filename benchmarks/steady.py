"""How steady are painted clips? Three clips made from photographs by known motion: a table, and the frames in a strip.

    python benchmarks/steady.py [--clips pan,turn,layers] [--frames 8] [--width 160] [--style mosaic]
                                [--steps 40] [--steadiness 300] [--flow tvl1] [--fast FILE:NAME] [--out FOLDER]

`pan` moves a photograph, `turn` zooms and rotates it, and in `layers` a part of one photograph moves over another one
and hides it. They are painted frame by frame (`alone`), each from the painting before (`start`), and by
`stylize_frames`, once for each value of `--steadiness`; with `--fast` by `fast_stylize_frames` instead, where 0 is each
frame without the others. Columns: the warping error against the frame before and against
the first frame, by the exact motion, which `stylize_frames` does not know; the style loss of the Gatys notebook, as a
mean and of the last frame; seconds for a frame.
"""

import argparse
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
import vggfeat_assets
from judge import Judge, of_area
from measuring import markdown
from torch import Tensor

from vggfeat import (
    WarpingError,
    fast_stylize_frames,
    gram,
    read_picture,
    recipe,
    stylize,
    stylize_frames,
    write_picture,
)
from vggfeat.pictures.images import resize
from vggfeat.pictures.video.flow import Frame
from vggfeat.pictures.video.names import STEADINESS
from vggfeat.transfer.recipe import Recipe

PICTURES = Path(vggfeat_assets.__file__).parent / "images"


class Motion:
    """A photograph under a motion: similarity transforms of the pixels of frame t = 0, 1, ..."""

    def __init__(
        self, picture: str, height: int, width: int, *, shift: tuple[float, float], turn: float, zoom: float
    ) -> None:
        self.source = resize(read_picture(PICTURES / f"{picture}.jpg").rgb, 2 * height, 2 * width)
        self.height, self.width = height, width
        self.shift, self.turn, self.zoom = complex(*shift), turn, zoom

    def factor(self, t: float) -> complex:
        """The rotation and zoom of frame t, as a complex number."""
        return complex(math.cos(self.turn * t), math.sin(self.turn * t)) * self.zoom**-t

    def places(self) -> Tensor:
        """The pixels about the middle, (H, W) complex."""
        y, x = torch.meshgrid(torch.arange(float(self.height)), torch.arange(float(self.width)), indexing="ij")
        return torch.complex(x - self.width / 2, y - self.height / 2)

    def flow(self, t: float, s: float) -> Tensor:
        """The offsets from frame t to frame s, (1, 2, H, W)."""
        z = self.places()
        moved = (z * self.factor(t) + self.shift * (t - s)) / self.factor(s) - z
        return torch.stack([moved.real, moved.imag])[None]

    def frame(self, t: float) -> Tensor:
        """(1, 3, H, W): the photograph, at twice the size, read where its pixels were at t = 0."""
        z = self.places() * self.factor(t) + self.shift * (t - 3.5)
        grid = torch.stack([z.real / self.width, z.imag / self.height], dim=2)[None]
        return F.grid_sample(self.source, grid, mode="bicubic", align_corners=False).clamp(0, 1)


class Layers:
    """One photograph over another one."""

    def __init__(self, height: int, width: int) -> None:
        self.ground = Motion("china", height, width, shift=(1.5, 0.0), turn=0, zoom=1)
        self.front = Motion("coffee", height, width, shift=(-3.0, 0.6), turn=0, zoom=1)

    def mask(self, t: float) -> Tensor:
        """Where the front is: a disc that moves with it."""
        z = self.front.places() + self.front.shift * (t - 3.5)
        return (z.abs() < self.front.height / 3)[None, None]

    def frame(self, t: float) -> Tensor:
        """(1, 3, H, W)."""
        return self.front.frame(t).where(self.mask(t), self.ground.frame(t))

    def flow(self, t: float, s: float) -> Tensor:
        """The offsets from frame t to frame s, (1, 2, H, W)."""
        return self.front.flow(t, s).where(self.mask(t), self.ground.flow(t, s))


def clips(height: int, width: int) -> dict[str, Motion | Layers]:
    """The clips by name."""
    return {
        "pan": Motion("china", height, width, shift=(3.3, 1.2), turn=0, zoom=1),
        "turn": Motion("chelsea", height, width, shift=(0, 0), turn=0.02, zoom=1.02),
        "layers": Layers(height, width),
    }


def alone(frames: Iterable[Tensor], style: Path, chosen: Recipe) -> Iterator[Tensor]:
    """Each frame as if there were no other."""
    run = None
    for frame in frames:
        run = stylize(frame, style, chosen, after=run)
        yield run.result()


def start(frames: Iterable[Tensor], style: Path, chosen: Recipe) -> Iterator[Tensor]:
    """Each frame from the painting before, which is not moved."""
    run, first = None, chosen
    with TemporaryDirectory() as folder:
        for frame in frames:
            run = stylize(frame, style, chosen, after=run)
            yield run.result()
            write_picture(f"{folder}/last.png", run.image)
            chosen = replace(first, start=f"{folder}/last.png")


@torch.no_grad()
def style_loss(judge: Judge, image: Tensor) -> float:
    """The style part of the loss of the Gatys notebook."""
    features = judge.extract((image * 255).round() / 255)
    return sum(
        float(1e3 / features[name].shape[1] ** 2 * F.mse_loss(gram(features[name]), target))
        for name, target in judge.style.items()
    )


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="pan,turn,layers")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--steps", type=int, default=40, help="of the recipe `default`")
    parser.add_argument("--style", default="mosaic")
    parser.add_argument("--steadiness", default=f"{STEADINESS:g}")
    parser.add_argument("--flow", default="tvl1")
    parser.add_argument("--fast", metavar="FILE:NAME", help="an instant style, which --style shows")
    parser.add_argument("--without", default="", help="ways to leave out: alone,start")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    width, height = options.width, round(options.width * 3 / 4)
    chosen, style = recipe("default", size=width, steps=options.steps), PICTURES / f"{options.style}.jpg"
    rows: list[list[str]] = []
    for name in options.clips.split(","):
        motion = clips(height, width)[name]

        def exact(first: Frame, second: Frame, motion: Motion | Layers = motion) -> Tensor:
            return motion.flow(first.number - 1, second.number - 1)

        frames = [motion.frame(t) for t in range(options.frames)]
        judge = Judge(frames[0], of_area(read_picture(style).rgb, height, width))
        ways: dict[str, Iterable[Tensor]] = {"original": frames}
        if not options.fast:
            ways |= {"alone": alone(frames, style, chosen), "start": start(frames, style, chosen)}
        for weight in map(float, options.steadiness.split(",")):
            if options.fast:
                ways[f"fast {weight:g}"] = fast_stylize_frames(
                    frames, options.fast, flow=options.flow, steadiness=weight
                )
            else:
                ways[f"steady {weight:g}"] = stylize_frames(frames, style, chosen, flow=options.flow, steadiness=weight)
        for way, painting in ways.items():
            if way in options.without.split(","):
                continue
            began = time.perf_counter()
            painted = list(painting)
            seconds = (time.perf_counter() - began) / len(frames)
            errors = [float(WarpingError(flow=exact, back=back)(painted, frames)) for back in (1, None)]
            losses = [style_loss(judge, x) for x in painted]
            rows.append(
                [
                    *(name, way, *(f"{error:.5f}" for error in errors)),
                    *(f"{loss:.4g}" for loss in (geometric_mean(losses), losses[-1])),
                    f"{seconds:.1f}",
                ]
            )
            print(*rows[-1], flush=True)
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                write_picture(options.out / f"{name}-{way.replace(' ', '-')}.png", torch.cat(painted, dim=3))
    print(
        markdown(
            ["clip", "painted", "warping error", "against the first", "style loss", "of the last", "s a frame"], rows
        )
    )


if __name__ == "__main__":
    main()
