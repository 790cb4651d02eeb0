"""Compare schedules of a recipe on six pairs of bundled pictures: a table, and the pictures side by side.

    python benchmarks/schedules.py [--recipe default] [--pairs 6] [--out FOLDER] NAME=FIELD:VALUE,... ...

Each argument names a schedule and the fields that it changes, such as `then=steps:60,step_decay:1.0`; `now=` is the
recipe as it is. Columns: seconds from the files to the picture; the loss of the Gatys notebook of the picture as it is
saved, in 8 bits; LPIPS to the photograph. Ratios are to the first schedule. `--out` writes schedules.jpg.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import geometric_mean, mean

import torch
import vggfeat_assets
from judge import Judge, of_area
from measuring import markdown
from torch import Tensor

from vggfeat import LPIPS, allocation, read_picture, recipe, stylize, write_picture
from vggfeat.errors import RecipeError
from vggfeat.explore.pages.variations import grid
from vggfeat.pictures.images import resize
from vggfeat.transfer.recipe import Recipe, from_values

PICTURES = Path(vggfeat_assets.__file__).parent / "images"
PAIRS = (
    ("china", "stained_glass"),
    ("chelsea", "swirls"),
    ("coffee", "mosaic"),
    ("rocket", "watercolour"),
    ("flower", "ink_wave"),
    ("astronaut", "woodcut"),
)


def changed(name: str, text: str) -> Recipe:
    """The recipe `name` with the fields of `steps:60,step_decay:1.0`, which are numbers. Raises `RecipeError`."""
    fields: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        field, _, value = item.partition(":")
        try:
            fields[field] = json.loads(value)
        except ValueError:
            raise RecipeError(f"'{item}' is no FIELD:NUMBER") from None
    return from_values(fields, f"schedule '{text}'", recipe(name))


def painted(content: str, style: str, chosen: Recipe) -> tuple[Tensor, dict[str, float]]:
    """A picture, and what was measured of it."""
    files = PICTURES / f"{content}.jpg", PICTURES / f"{style}.jpg"
    began = time.perf_counter()
    image = stylize(*files, chosen).result()
    seconds = time.perf_counter() - began
    photograph = resize(read_picture(files[0]).rgb, *image.shape[2:])
    judge = Judge(photograph, of_area(read_picture(files[1]).rgb, *image.shape[2:]))
    with torch.no_grad():
        distance = float(LPIPS(check="off")(image, photograph).mean())
    return image, {"seconds": seconds, "gatys": judge(image), "lpips": distance}


def main() -> None:
    """Paint, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedules", nargs="+", metavar="NAME=FIELD:VALUE,...")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="how many of the pairs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    allocation.hold()
    named = (item.partition("=") for item in options.schedules)
    try:
        schedules = {name: changed(options.recipe, text) for name, _, text in named}
    except RecipeError as error:
        parser.error(str(error))
    stylize(PICTURES / "china.jpg", PICTURES / "swirls.jpg", recipe("preview", size=64, steps=1)).result()  # warms up
    cells: dict[tuple[int, int], Tensor | str] = {}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in schedules}
    rows: list[list[str]] = []
    pairs = PAIRS[: options.pairs]
    for row, (content, style) in enumerate(pairs):
        for column, (name, chosen) in enumerate(schedules.items()):
            cells[row, column], measured = painted(content, style, chosen)
            found[name].append(measured)
            rows.append([f"{content} in {style}, {name}", *_told(measured)])
    first = found[next(iter(found))]
    for name, every in found.items():
        ratios = {key: [one[key] / other[key] for one, other in zip(every, first, strict=True)] for key in every[0]}
        summary = [f"{geometric_mean(ratios[key]):.2f}x" for key in ("seconds", "gatys")]
        rows.append([f"all, {name}", *summary, f"{mean(each['lpips'] for each in every):.3f}"])
    print(markdown(["pair, schedule", "seconds", "Gatys loss", "LPIPS to the photograph"], rows), end="")
    if options.out:
        page = grid(
            cells,
            [f"{content} in {style}" for content, style in pairs],
            list(schedules),
            names=("pair", "schedule"),
            title=f"Schedules of the recipe {options.recipe}",
            facts=" · ".join(options.schedules),
            sources={},
            size=(384, 512),
        )
        options.out.mkdir(parents=True, exist_ok=True)
        write_picture(options.out / "schedules.jpg", page)


def _told(measured: Mapping[str, float]) -> list[str]:
    return [f"{measured['seconds']:.1f}", f"{measured['gatys']:.4g}", f"{measured['lpips']:.3f}"]


if __name__ == "__main__":
    main()
