"""What the objectives of a recipe make of the same pictures: a table, its numbers as JSON, and a contact sheet.

    python benchmarks/objectives.py [--size 256] [--style-weights 1] [--out FOLDER]

Each objective paints two of the bundled photographs in two of the bundled styles with the recipe `preview`, at the
recipe's style weight or at multiples of it. Columns: the loss of the Gatys notebook, which `gram` minimises and the
others do not; LPIPS to the photograph, which says how far from it the picture went; the seconds of the run. Writes
objectives.json and objectives.jpg into FOLDER, and what is painted into FOLDER/painted: a second run paints what is
missing there.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import torch
import vggfeat_assets
from judge import Judge, of_area
from torch import Tensor

from vggfeat import LPIPS, files, read_picture, recipe, stylize, write_picture
from vggfeat.explore.pages.variations import grid
from vggfeat.pictures.images import fit, read_text, resize
from vggfeat.transfer.recipe import CHOICES

PICTURES = Path(vggfeat_assets.__file__).parent / "images"
PAIRS = [(content, style) for content in ("china", "chelsea") for style in ("stained_glass", "swirls")]


def read(name: str, size: int) -> Tensor:
    """A bundled picture at `size`."""
    picture = read_picture(PICTURES / f"{name}.jpg").rgb
    return resize(picture, *fit(picture.shape[2], picture.shape[3], size))


def main() -> None:
    """Paint, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--style-weights", default="1", help="multiples of the recipe's, such as 0.1,1,10")
    parser.add_argument("--objectives", default=",".join(CHOICES["objective"]))
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    multiples = [float(text) for text in options.style_weights.split(",")]
    rows = [(objective, times) for objective in options.objectives.split(",") for times in multiples]
    folder: Path = options.out / "painted"
    folder.mkdir(parents=True, exist_ok=True)
    perceptual = LPIPS(check="off")
    chosen = recipe("preview", size=options.size)
    found: list[dict[str, object]] = []
    cells: dict[tuple[int, int], Tensor | str] = {}
    for column, (content_name, style_name) in enumerate(PAIRS):
        content = read(content_name, options.size)
        style = of_area(read(style_name, 1024), *content.shape[2:])
        judge = Judge(content, style)
        stylize(content, style, recipe("preview", size=options.size, steps=2)).result()  # warms up
        for row, (objective, times) in enumerate(rows):
            weight = chosen.style_weight * times
            changed = recipe("preview", size=options.size, objective=objective, style_weight=weight)
            path = folder / f"{content_name}-{style_name}-{objective}-{times:g}.png"
            if not path.exists():
                began = time.perf_counter()
                painted = stylize(content, style, changed).result()
                write_picture(path, painted, text={"seconds": str(time.perf_counter() - began)})
            image, seconds = read_picture(path).rgb, float(read_text(path)["seconds"])
            with torch.no_grad():
                away = float(perceptual(image, content).mean())
            measured = {"gatys": judge(image), "lpips": away, "seconds": seconds}
            found.append({"objective": objective, "times": times, "pair": [content_name, style_name], **measured})
            cells[row, column] = image
    labels = [objective if len(multiples) == 1 else f"{objective} x{times:g}" for objective, times in rows]
    print("| objective | Gatys loss | LPIPS to the photograph | seconds |")
    print("| --- | --- | --- | --- |")
    for label, (objective, times) in zip(labels, rows, strict=True):
        ours = [each for each in found if (each["objective"], each["times"]) == (objective, times)]
        gatys, away, seconds = (mean(each[name] for each in ours) for name in ("gatys", "lpips", "seconds"))
        print(f"| {label} | {gatys:.3g} | {away:.3f} | {seconds:.1f} |")
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "size": options.size, "runs": found}
    files.write(options.out / "objectives.json", json.dumps(about, indent=1) + "\n")
    page = grid(
        cells,
        labels,
        [f"{content} in {style}" for content, style in PAIRS],
        names=("objective", "pair"),
        title="What the objectives make of the same pictures",
        facts=f"recipe preview · {options.size} px · {chosen.steps} steps · style weight {chosen.style_weight:g}",
        sources={style: read(style, 256) for style in dict.fromkeys(style for _, style in PAIRS)},
        size=(round(options.size * 0.75), options.size),
    )
    write_picture(options.out / "objectives.jpg", page)


if __name__ == "__main__":
    main()
