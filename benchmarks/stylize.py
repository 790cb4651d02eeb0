"""Style transfer: vggfeat against pastiche, by the step and by the seconds to a loss of the saved file.

    python benchmarks/stylize.py [--quick] [--content FILE] [--style FILE] [--size 256] [--steps 500] [--out FOLDER]

Both paint with the objective of the Gatys notebook, VGG-19 to relu5_1, from the same two files, which are resized
beforehand, so that neither is judged by how it resizes.

The step: one of each optimiser, with its evaluation of the objective and the gradient, at `--width` x `--height`;
beside it the convolutions of that evaluation alone, forward and to their inputs.

The way: pastiche runs `--steps` of its L-BFGS, vggfeat its recipe `gatys` coarse to fine, once in each precision. Every
few steps the picture is judged as it would be saved, rounded to 8 bits, by the loss in float32 of one network at full
size. Seconds count from the two files on, loading and targets included, and without the judging.

pastiche is as its users run it: its own optimiser, start and weights, which are the notebook's times 0.01. It runs
once more with its network in channels_last. Needs pastiche (extra `bench`).
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from judge import Judge, of_area
from measuring import PRECISIONS, Found, Work, command, markdown, mebibytes, paired, race, ratio, spread, timed, timer
from PIL import Image
from roofline import Convolutions, Product
from torch import Tensor

from vggfeat import Stylization, read_picture, recipe, stylize, write_picture
from vggfeat.explore import plots
from vggfeat.pictures.images import fit, resize

if TYPE_CHECKING:
    from pastiche.pastiche import PasticheArtist

ASSETS = Path(__file__).parents[1] / "assets/images"
SETTINGS = {
    "content": (str(ASSETS / "china.jpg"), str(ASSETS / "china.jpg")),
    "style": (str(ASSETS / "stained_glass.jpg"), str(ASSETS / "stained_glass.jpg")),
    "size": (256, 48),
    "steps": (500, 6),
    "width": (512, 64),
    "height": (384, 48),
    "rounds": (7, 1),
}
PEER = "pastiche"
CONTENDERS = (PEER, "pastiche, channels_last", "vggfeat float32", "vggfeat bfloat16")
LAST = "relu5_1"
# pastiche's weights are the notebook's times this.
PASTICHE = 0.01


def resized(settings: SimpleNamespace, folder: Path, height: int, width: int) -> tuple[Path, Path]:
    """Both pictures as files: the content at a size, the style of its area."""
    picture, manner = read_picture(settings.content).rgb, read_picture(settings.style).rgb
    write_picture(folder / "content.png", resize(picture, height, width))
    write_picture(folder / "style.png", of_area(manner, height, width))
    return folder / "content.png", folder / "style.png"


def artist(name: str, content: Path, style: Path) -> "PasticheArtist":
    """pastiche, ready to draw."""
    from pastiche.pastiche import PasticheArtist

    made = PasticheArtist(str(content), [str(style)], device="cpu")
    if "channels_last" in name:
        torch.nn.Module.to(made.vgg19, memory_format=torch.channels_last)  # its own takes none
    return made


def build(name: str, settings: SimpleNamespace) -> Work:
    """A contender for the step: each call is one."""
    with tempfile.TemporaryDirectory() as folder:
        content, style = resized(settings, Path(folder), settings.height, settings.width)
        if name.startswith("pastiche"):
            return artist(name, content, style).draw
        run = whole(content, style, name.removeprefix("vggfeat "))
        painting = iter(run)
        next(painting)  # reads the files, and finds the targets
    return lambda: next(painting)


def whole(content: Path, style: Path, precision: str) -> Stylization:
    """A run of vggfeat at full size from the first step on."""
    endless = recipe("gatys", steps=10**6, first_size=65536)
    return stylize(content, style, endless, size=65536, precision=precision, device="cpu")


def steps(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds of a step of each, and of its convolutions alone."""
    racing: dict[str, Any] = {name: build(name, settings) for name in timed(CONTENDERS)}
    shape = 1, settings.height, settings.width
    for precision in PRECISIONS:
        racing[f"convolutions alone {precision}"] = Convolutions("vgg19", LAST, shape, precision, backward=True)
        racing[f"matrix product {precision}"] = Product(precision)
    return race(racing, settings.rounds, timer(settings))


def pastiche_way(content: Path, style: Path, settings: SimpleNamespace) -> Iterator[Tensor | None]:
    """The picture that would be saved after the start and after each step; None between judgements."""
    from pastiche.pastiche import save_image

    made = artist(PEER, content, style)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.png")
        for step in range(settings.steps + 1):
            if step:
                made.draw()
            if judged(step) or step == settings.steps:
                save_image(made.pastiche, saved)
                yield read_picture(saved).rgb
            else:
                yield None


def our_way(content: Path, style: Path, precision: str, settings: SimpleNamespace) -> Iterator[Tensor | None]:
    """The picture at full size at the end of each step; None where it is of a coarser stage, or not judged."""
    count = max(1, min(60, settings.steps))
    painting = recipe("gatys", steps=count, step_decay=5.0)
    for progress in stylize(content, style, painting, size=settings.size, precision=precision, device="cpu"):
        yield progress.image if progress.stage == progress.stages and judged(progress.step) else None


def judged(step: int) -> bool:
    """Whether a step is one at which pictures are judged: ever fewer."""
    return step % max(1, 2 ** int(math.log2(max(1, step)) - 3)) == 0


def way(
    pictures: Iterator[Tensor | None], judge: Callable[[Tensor], float], clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds and losses of the pictures as they come; the judging is not counted."""
    found: dict[str, list[float]] = {"seconds": [], "losses": []}
    taken, began = 0.0, clock()
    for picture in pictures:
        taken += clock() - began
        if picture is not None:
            found["seconds"].append(taken)
            found["losses"].append(judge(picture))
        began = clock()
    return found


def ways(settings: SimpleNamespace) -> dict[str, dict[str, list[float]]]:
    """The way of each tool, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        picture = read_picture(settings.content).rgb
        sides = fit(picture.shape[2], picture.shape[3], settings.size)
        content, style = resized(settings, Path(name), *sides)
        judge = Judge(read_picture(content).rgb, read_picture(style).rgb)
        theirs, ours = artist(PEER, content, style).loss / PASTICHE, judge(read_picture(content).rgb)
        if not abs(theirs - ours) < 0.01 * ours:
            raise SystemExit(f"pastiche begins at a loss of {theirs:.5g}, and the judge says {ours:.5g}")
        found = {PEER: way(pastiche_way(content, style, settings), judge, timer(settings))}
        for precision in PRECISIONS:
            found[f"vggfeat {precision}"] = way(our_way(content, style, precision, settings), judge, timer(settings))
    return found


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Both sides of the matter."""
    return {"ways": ways(settings), "seconds": steps(settings), "peak_mib": dict.fromkeys(timed(CONTENDERS))}


def seconds_to(found: dict[str, list[float]], goal: float) -> float | None:
    """Seconds until the loss was `goal`; None where it never was."""
    return next((second for second, loss in zip(found["seconds"], found["losses"], strict=True) if loss <= goal), None)


def table(found: Found) -> str:
    """Two tables: the step, and the seconds to the loss of pastiche's last picture and of some before."""
    everyone = found["seconds"]
    rows = [
        [
            name,
            spread(seconds),
            ratio(paired(everyone[PEER], seconds)) if name in CONTENDERS else "",
            ratio(paired(seconds, everyone[f"convolutions alone {'bfloat16' if 'bfloat16' in name else 'float32'}"]))
            if name in CONTENDERS
            else "",
            mebibytes(found["peak_mib"].get(name)),
        ]
        for name, seconds in everyone.items()
    ]
    step = markdown(["", "seconds a step", "ratio", "against its convolutions", "memory"], rows)
    theirs = found["ways"][PEER]
    ours = [name for name in found["ways"] if name != PEER]
    rows = []
    for share in (0.1, 0.3, 1.0):
        at = min(len(theirs["seconds"]) - 1, round(share * (len(theirs["seconds"]) - 1)))
        goal, seconds = min(theirs["losses"][: at + 1]), theirs["seconds"][at]
        row = [f"{goal:.4g}", f"{seconds:.1f}"]
        for name in ours:
            reached = seconds_to(found["ways"][name], goal)
            row += ["never", ""] if reached is None else [f"{reached:.1f}", ratio(seconds / reached)]
        rows.append(row)
    header = ["loss of the saved file", "pastiche, s", *(cell for name in ours for cell in (f"{name}, s", "ratio"))]
    return f"{step}\n{markdown(header, rows)}"


def chart(found: Found) -> Image.Image:
    """The loss of the saved file against seconds."""
    ways = {name: (np.asarray(way["seconds"]), way["losses"]) for name, way in found["ways"].items()}
    places = np.unique(np.concatenate([seconds for seconds, _ in ways.values()]))
    lines = {
        name: np.interp(places, seconds, losses, left=math.nan, right=math.nan).tolist()
        for name, (seconds, losses) in ways.items()
    }
    title = f"Loss of the saved file, {found['settings']['size']} px"
    return plots.line_chart(lines, title=title, x_label="seconds", x=places.tolist(), log=True, log_x=True, width=760)


if __name__ == "__main__":
    command(__doc__, "stylize", SETTINGS, build=build, measure=measure, table=table, chart=chart)
