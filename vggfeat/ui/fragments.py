"""What work came to, as HTML: pictures are inside it, so that showing them leaves no file behind."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.networks import arch

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from vggfeat.ui.work import Compared, Grid, Painting

_METRICS = {
    "lpips-vgg": ("LPIPS (VGG)", "how different they look to VGG-16; 0 for equal pictures"),
    "dists": ("DISTS", "how different structure and texture are; 0 for equal pictures"),
    "psnr": ("PSNR", "decibels, from the pixels alone; infinite for equal pictures"),
    "ssim": ("SSIM", "likeness of local structure; 1 for equal pictures"),
}


def data_uri(picture: "Image.Image | Tensor", alpha: "Tensor | None" = None) -> str:
    """A picture as the address of an image; PNG where it is small, else WebP, which keeps `alpha` too."""
    from PIL import Image

    from vggfeat.pictures import images

    image = picture if isinstance(picture, Image.Image) else images.to_pil(picture, alpha)
    small = image.width * image.height <= 128 * 128
    file = io.BytesIO()
    if small:
        image.save(file, "PNG")
    else:
        image.save(file, "WEBP", quality=88, method=2)
    return f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"


def note(text: str) -> str:
    """A quiet line."""
    return f'<p class="vf-note">{escape(text)}</p>'


def waiting(title: str, text: str) -> str:
    """What stands where nothing is yet."""
    return f'<div class="vf-empty"><strong>{escape(title)}</strong><span>{escape(text)}</span></div>'


def figure(uri: str, alt: str, caption: str = "") -> str:
    """A picture with its caption."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="vf-figure"><img src="{uri}" alt="{escape(alt)}">{below}</figure>'


def status(painting: "Painting") -> str:
    """Where a run stands, as a bar and a line; the line is read out when it changes."""
    at = painting.progress
    share = 1.0 if painting.file and not painting.stopped else at.done
    height, width = painting.image.shape[2:]
    if painting.file is None:
        words = f"Stage {at.stage} of {at.stages}, step {at.step} of {at.steps}"
    elif painting.stopped:
        words = f"Stopped at step {at.step} of {at.steps}, stage {at.stage} of {at.stages}"
    else:
        words = "Done"
    facts = f"{width} x {height} pixels, {at.seconds:.0f} s, loss {at.losses['total']:.4g}"
    extra = f" · {at.note}" if at.note else ""
    return (
        f'<div class="vf-status"><progress max="1" value="{share:.4f}" aria-label="how much is done"></progress>'
        f"<span><strong>{escape(words)}</strong> {escape(facts + extra)}</span></div>"
    )


def wipe(before: str, after: str, names: tuple[str, str] = ("before", "after")) -> str:
    """Two pictures of one shape on top of each other, and a slider that moves the border between them."""
    first, second = map(escape, names)
    return (
        '<figure class="vf-figure vf-wipe" style="--at:50%">'
        f'<div class="vf-stack"><img src="{before}" alt="{first}"><img class="vf-top" src="{after}" alt="{second}">'
        '<input type="range" min="0" max="100" value="50" step="1" '
        f'aria-label="Border between {first}, on the left, and {second}" '
        "oninput=\"this.closest('figure').style.setProperty('--at', this.value + '%')\">"
        '<span class="vf-border" aria-hidden="true"></span>'
        f'<span class="vf-tag vf-left" aria-hidden="true">{first}</span>'
        f'<span class="vf-tag vf-right" aria-hidden="true">{second}</span></div></figure>'
    )


def overlay(picture: str, channel: str, title: str, facts: str) -> str:
    """A channel over its picture, and a slider for how much of the channel shows."""
    return (
        '<figure class="vf-figure vf-over" style="--share:0.6">'
        f"<figcaption><strong>{escape(title)}</strong> {escape(facts)}</figcaption>"
        f'<div class="vf-stack"><img src="{picture}" alt="the picture beneath">'
        f'<img class="vf-top" src="{channel}" alt="{escape(title)}: bright where it is active"></div>'
        '<label class="vf-slider"><span>picture</span>'
        '<input type="range" min="0" max="1" value="0.6" step="0.01" aria-label="From the picture to the channel" '
        "oninput=\"this.closest('figure').style.setProperty('--share', this.value)\">"
        "<span>channel</span></label></figure>"
    )


def choices(pictures: Sequence[tuple[str, str, str]], label: str) -> str:
    """Pictures to choose from, (name, address, description) each: buttons that say their name when they are pressed."""
    items = "".join(
        f'<button type="button" data-pick="{escape(name)}" title="{escape(about)}" aria-label="{escape(about)}">'
        f'<img src="{uri}" alt=""><span>{escape(name.replace("_", " "))}</span></button>'
        for name, uri, about in pictures
    )
    return (
        f'<p class="vf-title">{escape(label)}</p>'
        f'<div class="vf-choices" role="group" aria-label="{escape(label)}">{items}</div>'
    )


def tiles(grid: "Grid") -> str:
    """Every channel as a button, that says its number when it is pressed."""
    height, width = grid.tile
    columns, count = grid.columns, len(grid.peaks)
    rows = -(-count // columns)
    items = "".join(
        f'<button type="button" data-pick="{number}" aria-pressed="false" aria-label="channel {number}, {_peak(peak)}">'
        f'<i style="background-position:-{number % columns * width}px -{number // columns * height}px"></i>'
        f"<span>{number}</span></button>"
        for number, peak in enumerate(grid.peaks)
    )
    layer = grid.layer
    facts = (
        f"{count} channels of {grid.size[0]} x {grid.size[1]}, stride {layer.stride}; "
        f"each position sees {layer.receptive_field} x {layer.receptive_field} pixels"
    )
    style = (
        f"--w:{width}px;--h:{height}px;--sheet:url('{data_uri(grid.sprite)}');"
        f"--sheet-size:{columns * width}px {rows * height}px"
    )
    return (
        f'<p class="vf-facts"><strong>{escape(layer.name)}</strong> {escape(facts)}</p>'
        f'<div class="vf-tiles" role="group" aria-label="channels of {escape(layer.name)}" style="{style}">'
        f"{items}</div>"
    )


def _peak(peak: float) -> str:
    return f"largest value {peak:.3g}" if peak else "silent"


def metrics(found: "Compared") -> str:
    """The metrics as a table, with what they mean, and notes on how they came about."""
    rows = "".join(
        f'<tr><th scope="row">{escape(_METRICS[name][0])}</th><td class="vf-number">{_number(value)}</td>'
        f"<td>{escape(_METRICS[name][1])}</td></tr>"
        for name, value in found.values.items()
    )
    notes = "".join(note(text) for text in found.notes)
    return (
        '<table class="vf-table vf-metrics"><caption>How far apart they are</caption><thead><tr>'
        '<th scope="col">metric</th><th scope="col">value</th><th scope="col">what it says</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{notes}"
    )


def _number(value: float) -> str:
    return "∞" if value == float("inf") else f"{value:z.4f}"


def heat(found: "Compared") -> str:
    """The heat map with its scale, and the two pictures with a border between them."""
    import torch

    from vggfeat.explore import colours

    bar = colours.heat(torch.linspace(0, 1, 256).reshape(1, 1, 1, 256).expand(1, 1, 8, 256))
    scale = (
        f'<div class="vf-scale"><span>equal</span><img src="{data_uri(bar)}" alt="from black to white">'
        f"<span>LPIPS {found.heat_top:g} and above</span></div>"
    )
    return (
        '<div class="vf-pair"><div><h3>Where they differ</h3>'
        + figure(data_uri(found.heat), "heat map of where the pictures differ, brighter is more")
        + scale
        + "</div><div><h3>The pictures</h3>"
        + wipe(data_uri(found.a), data_uri(found.b), ("first", "second"))
        + "</div></div>"
    )


def layers(name: str, size: int) -> str:
    """The layer table of a network for a square picture."""
    rows = arch.sized_layers(name, size)
    names = [field.name for field in fields(arch.SizedLayer)]
    head = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    body = "".join(f'<tr class="vf-{row.kind}">{_cells(asdict(row))}</tr>' for row in rows)
    caption = f"{name} at {size} x {size} pixels; parameters and multiply-accumulates (macs) add up"
    return (
        f'<div class="vf-scroll" role="region" aria-label="layer table" tabindex="0"><table class="vf-table vf-layers">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Mapping[str, object]) -> str:
    first, *rest = row.values()
    cells = (
        f'<td class="vf-number">{value:,}</td>'.replace(",", "\u202f")
        if isinstance(value, int)
        else f"<td>{escape(str(value))}</td>"
        for value in rest
    )
    return f'<th scope="row">{escape(str(first))}</th>{"".join(cells)}'


def thumbnails(
    files: Iterable[Path], descriptions: Mapping[str, str], *, side: int = 128
) -> list[tuple[str, str, str]]:
    """(name, address, description) of picture files, small."""
    from PIL import Image

    found: list[tuple[str, str, str]] = []
    for file in files:
        with Image.open(file) as image:
            small = image.convert("RGB")
        small.thumbnail((side * 2, side * 2))
        left, top = (small.width - min(small.size)) // 2, (small.height - min(small.size)) // 2
        square = small.crop((left, top, left + min(small.size), top + min(small.size))).resize((side, side))
        out = io.BytesIO()
        square.save(out, "WEBP", quality=82)
        uri = f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
        found.append((file.stem, uri, descriptions.get(file.stem, file.stem.replace("_", " "))))
    return found
