"""relu3_3 of VGG-16: vggfeat against torchvision's `create_feature_extractor`, and against the convolutions alone.

    python benchmarks/extraction.py [--quick] [--batch 16] [--side 224] [--rounds 5] [--out FOLDER]

The same weights and the same images, which are in memory, normalised and run without gradients. torchvision runs as
its users run it (float32, torch's usual layout), and with what speeds it up: channels_last, and bfloat16 in
channels_last. Ratios are to the first of these. The roofline is timed in the same rounds. Before, what each returns is
held to torchvision's features.
"""

from types import SimpleNamespace
from typing import Any

import torch
from measuring import (
    PRECISIONS,
    Found,
    Work,
    command,
    markdown,
    mebibytes,
    median,
    paired,
    race,
    ratio,
    spread,
    timed,
    timer,
)
from PIL import Image
from roofline import Convolutions, Product
from torchvision.models import vgg16
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import normalize

from vggfeat import FeatureExtractor
from vggfeat.explore import plots
from vggfeat.networks import weights

LAYER, INDEX = "relu3_3", "features.15"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = {"batch": (16, 1), "side": (224, 64), "rounds": (5, 1)}

PEER = "torchvision float32"
CONTENDERS = (
    PEER,
    "torchvision float32, channels_last",
    "torchvision bfloat16, channels_last",
    "vggfeat float32",
    "vggfeat bfloat16",
)
# What a contender's features may differ by, as a share of their norm.
LIMITS = {"float32": 1e-4, "bfloat16": 0.02}


def precision_of(name: str) -> str:
    """`float32` or `bfloat16`, which every contender's name holds."""
    return next(precision for precision in LIMITS if precision in name)


def torchvision_extractor() -> torch.nn.Module:
    """Torchvision's VGG-16 with vggfeat's weights, cut at the layer."""
    model = vgg16(weights=None, init_weights=False)
    state, _ = weights.load("vgg16")
    model.load_state_dict(state, strict=False)
    return create_feature_extractor(model.eval(), {INDEX: LAYER})


def build(name: str, settings: SimpleNamespace) -> Work:
    """A contender: each call returns the features of the same batch."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(settings.batch, 3, settings.side, settings.side, generator=generator)
    if name.startswith("vggfeat"):
        extract = FeatureExtractor("vgg16", LAYER, precision=precision_of(name), check="off")
        return torch.inference_mode()(lambda: extract(batch)[LAYER])
    model = torchvision_extractor()
    if "channels_last" in name:
        model = model.to(memory_format=torch.channels_last)
    if "bfloat16" in name:
        model = model.bfloat16()
    dtype = next(model.parameters()).dtype
    return torch.inference_mode()(lambda: model(normalize(batch, MEAN, STD).to(dtype))[LAYER])


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds of each contender in each round, their memory, and the floating-point operations of a batch."""
    names = timed(CONTENDERS)
    racing: dict[str, Any] = {name: build(name, settings) for name in names}
    expected = racing[PEER]()
    for name, work in racing.items():
        error = float((work().float() - expected).norm() / expected.norm())
        if not error < LIMITS[precision_of(name)]:
            raise SystemExit(f"{name} differs from torchvision by {error:.2g} of the features' norm")
    shape = settings.batch, settings.side, settings.side
    for precision in PRECISIONS:
        racing[f"convolutions alone {precision}"] = Convolutions("vgg16", LAYER, shape, precision)
        racing[f"matrix product {precision}"] = Product(precision)
    flops = {name: work.flops for name, work in racing.items() if isinstance(work, Convolutions | Product)}
    flops |= dict.fromkeys(names, flops["convolutions alone float32"])
    return {
        "seconds": race(racing, settings.rounds, timer(settings)),
        "flops": flops,
        "peak_mib": dict.fromkeys(names),
    }


def shares(found: Found) -> dict[str, float]:
    """{contender: the time of the convolutions alone, in its precision, over its own}."""
    seconds = found["seconds"]
    return {
        name: paired(seconds[f"convolutions alone {precision_of(name)}"], seconds[name])
        for name in CONTENDERS
        if name in seconds
    }


def table(found: Found) -> str:
    """A row each."""
    seconds, batch = found["seconds"], found["settings"]["batch"]
    share = shares(found)
    rows = [
        [
            name,
            spread(seconds[name]),
            f"{batch / median(seconds[name]):.1f}" if name in CONTENDERS else "",
            f"{found['flops'][name] / median(seconds[name]) / 1e9:.0f}",
            ratio(paired(seconds[PEER], seconds[name])) if name in CONTENDERS else "",
            f"{share[name]:.0%}" if name in share else "",
            mebibytes(found["peak_mib"].get(name)),
        ]
        for name in seconds
    ]
    header = ["", "seconds", "pictures/s", "GFLOP/s", "ratio", "of the convolutions alone", "memory"]
    return markdown(header, rows)


def chart(found: Found) -> Image.Image:
    """Pictures per second as bars."""
    batch = found["settings"]["batch"]
    bars = {name: batch / median(seconds) for name, seconds in found["seconds"].items() if "product" not in name}
    title = f"{LAYER} of VGG-16, {found['settings']['side']} px"
    return plots.bar_chart(bars, title=title, x_label="pictures per second", width=760)


if __name__ == "__main__":
    command(__doc__, "extraction", SETTINGS, build=build, measure=measure, table=table, chart=chart)
