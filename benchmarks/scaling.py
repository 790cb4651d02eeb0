"""How the cost grows: a step of style transfer with its pixels, extraction with its batch and with the threads.

    python benchmarks/scaling.py [--quick] [--largest 2048] [--batches 64] [--rounds 2] [--out FOLDER]

The step is the objective of the recipe `gatys` and its gradient, in bfloat16 where the processor is fast at it and in
float32 elsewhere. Squares of 256, 512, ... `--largest` pixels are looked at whole up to 1024, and from there on in the
blocks that are chosen where `--share` of the memory is allowed that the whole picture takes. Freed memory is held on
to, as `vggfeat stylize` does. Extraction is relu3_3 of VGG-16 at 224 px, in batches of 1, 2, 4, ... `--batches`, and
with 1 to all threads in batches of 8. Nothing here has a peer: each row is compared with the first of its kind.
"""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from measuring import PRECISIONS, Found, Work, command, markdown, mebibytes, median, paired, race, ratio, spread, timer
from PIL import Image

from vggfeat import FeatureExtractor, recipe
from vggfeat.explore import plots
from vggfeat.features import allocation
from vggfeat.networks import arch
from vggfeat.transfer import memory
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.objective import Term, content_losses, style_losses

SETTINGS = {
    "largest": (2048, 256),
    "smallest": (256, 64),
    "share": (0.5, 0.75),
    "batches": (64, 2),
    "side": (224, 64),
    "rounds": (2, 1),
}
LAYER = "relu3_3"
# Up to this many times the smallest side pictures are looked at whole, and from it on in blocks.
_BLOCKS_FROM = 4
_THREADS_BATCH = 8


def doubled(first: int, last: int) -> list[int]:
    """First, twice that, and so on, up to last."""
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found


def looks(settings: SimpleNamespace) -> list[tuple[int, str]]:
    """The sides of the squares, and how each is looked at."""
    found: list[tuple[int, str]] = []
    for side in doubled(settings.smallest, settings.largest):
        if side <= _BLOCKS_FROM * settings.smallest:
            found.append((side, "whole"))
        if side >= min(_BLOCKS_FROM * settings.smallest, settings.largest):
            found.append((side, "blocks"))
    return found


def build(name: str, settings: SimpleNamespace) -> Work:
    """The objective and its gradient of a picture: `512 px, whole` or `1024 px, blocks`."""
    side, how = number(name), name.rsplit(maxsplit=1)[-1]
    painting = recipe("gatys")
    extract = FeatureExtractor(
        painting.network, painting.layer_weights(), weights=painting.weights, precision=PRECISIONS[-1], check="off"
    )
    look = Whole(extract, painting.margin)
    if how == "blocks":
        allowed = settings.share * memory.predict(extract, painting, side, side)
        blocks = memory.choose(extract, painting, side, side, int(allowed))
        if blocks is None:
            raise ValueError("--share must be below 1")
        look = Blockwise(extract, painting.margin, blocks)
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 64, 64, generator=generator)
    # The values of the targets change no timing: Gram matrices of a small picture, and features that are all zero.
    terms = [loss.term(target) for loss in style_losses(painting) for target in look.targets(small, [loss])]
    for key, weight, loss in content_losses(painting):
        read = arch.find_layers(painting.network, loss.layers)
        zeros = {
            layer.name: torch.zeros(1, layer.channels, side // layer.stride, side // layer.stride) for layer in read
        }
        terms.append(Term(key, weight, loss, zeros))
    image = torch.rand(1, 3, side, side, generator=generator)
    return lambda: look.evaluate(terms, image)


def extraction(precision: str, batch: int, side: int) -> Callable[[], object]:
    """The features of a batch."""
    extract = FeatureExtractor("vgg16", LAYER, precision=precision, check="off")
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return torch.inference_mode()(lambda: extract(images))


def with_threads(count: int, work: Work) -> Work:
    """Some work on so many threads."""

    def limited() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            work()
        finally:
            torch.set_num_threads(before)

    return limited


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds by side, by batch and by number of threads."""
    allocation.hold()
    by_side: dict[str, list[float]] = {}
    for side, how in looks(settings):
        name = f"{side} px, {how}"
        # One by one, since the large ones take the memory of many. The first look at a size takes its memory.
        large = side >= _BLOCKS_FROM * settings.smallest
        by_side |= race({name: build(name, settings)}, 1 if large else settings.rounds + 1, timer(settings))
    batches = {
        f"{precision}, batch {batch}": extraction(precision, batch, settings.side)
        for precision in PRECISIONS
        for batch in doubled(1, settings.batches)
    }
    threads = {
        f"{precision}, threads {count}": with_threads(
            count, extraction(precision, min(_THREADS_BATCH, settings.batches), settings.side)
        )
        for precision in PRECISIONS
        for count in doubled(1, len(os.sched_getaffinity(0)))
        if settings.clock == "wall"
    }
    names = [f"{side} px, {how}" for side, how in looks(settings) if side <= _BLOCKS_FROM * settings.smallest]
    by_batch, by_threads = (race(works, settings.rounds, timer(settings)) for works in (batches, threads))
    return {"step": by_side, "batch": by_batch, "threads": by_threads, "peak_mib": dict.fromkeys(names)}


def precisions(found: Found) -> list[str]:
    """The precisions that were timed, on whichever processor."""
    return list(dict.fromkeys(name.split(",")[0] for name in found["batch"]))


def number(name: str) -> int:
    """The number in a name: of pixels, pictures or threads."""
    return next(int(word) for word in name.split() if word.isdigit())


def table(found: Found) -> str:
    """Three tables: pixels, batches, threads."""
    rows: list[list[str]] = []
    first = next(iter(found["step"]))
    for name, seconds in found["step"].items():
        each = median(seconds) / number(name) ** 2 * 1e6
        base = median(found["step"][first]) / number(first) ** 2 * 1e6
        peak = mebibytes(found["peak_mib"].get(name))
        rows.append([name, spread(seconds), f"{each:.3g}", ratio(each / base), peak])
    text = markdown(["step", "seconds", "seconds a megapixel", f"against {first}", "memory"], rows)
    for kind, unit in (("batch", number), ("threads", lambda _: min(_THREADS_BATCH, found["settings"]["batches"]))):
        rows = []
        for precision in precisions(found):
            ours = {name: seconds for name, seconds in found[kind].items() if name.startswith(precision)}
            first = next(iter(ours), "")
            for name, seconds in ours.items():
                gain = paired(ours[first], seconds) * unit(name) / unit(first)
                rows.append([name, spread(seconds), f"{unit(name) / median(seconds):.1f}", ratio(gain)])
        text += "" if not rows else "\n" + markdown(["extraction", "seconds", "pictures/s", "gain"], rows)
    return text


def chart(found: Found) -> Image.Image:
    """Seconds a megapixel by the side, and pictures per second by the batch."""
    sides = sorted({number(name) for name in found["step"]})
    each = {
        how: [median(found["step"].get(f"{side} px, {how}", [float("nan")])) / side**2 * 1e6 for side in sides]
        for how in ("whole", "blocks")
    }
    counts = sorted({number(name) for name in found["batch"]})
    rates = {
        precision: [count / median(found["batch"][f"{precision}, batch {count}"]) for count in counts]
        for precision in precisions(found)
    }
    size: dict[str, Any] = {"log_x": True, "width": 440, "height": 320}
    step = plots.line_chart(each, x=sides, title="Step: s a megapixel", x_label="pixels a side", **size)
    batch = plots.line_chart(rates, x=counts, title="Pictures/s", x_label="batch", **size)
    return plots.beside(step, batch)


if __name__ == "__main__":
    command(__doc__, "scaling", SETTINGS, build=build, measure=measure, table=table, chart=chart)
