"""A training step of LPIPS, DISTS and the ESRGAN loss: vggfeat against the packages and the snippet people use.

    python benchmarks/losses.py [--quick] [--pairs 2] [--size 256] [--rounds 4] [--out FOLDER]

Each contender takes the same images and computes the loss and its gradient for the prediction. The peers are as their
users call them, their networks frozen (which saves `lpips` the gradient of its heads); two of them run once more with
what speeds them up, channels_last and autocast to bfloat16. They get the bundled weights, which changes no timing.
Before, all losses of a kind are held to each other. A peer that is not installed is left out.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torchvision
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
from torch import Tensor, nn

from vggfeat import DISTS, LPIPS, LPIPSLoss, PerceptualLoss
from vggfeat.explore import plots
from vggfeat.networks import weights

Loss = Callable[[Tensor, Tensor], Tensor]
SETTINGS = {"pairs": (2, 1), "size": (256, 64), "rounds": (7, 1)}

# Of the loss that is compared with, what a contender's may differ by.
LIMITS = {"float32": 2e-3, "bfloat16": 0.05}


class Snippet(nn.Module):
    """What people paste for ESRGAN: torchvision's features up to conv5_4, the target detached, the mean difference."""

    def __init__(self) -> None:
        super().__init__()
        features = torchvision.models.vgg19(weights=None).features
        state, row = weights.load("vgg19", "oxford")
        features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
        self.features = features[:35].eval().requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor(row.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(row.std).view(1, 3, 1, 1))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of images (N, 3, H, W) in [0, 1]."""
        x, y = (self.features((images - self.mean) / self.std) for images in (prediction, target.detach()))
        return nn.functional.l1_loss(x, y) + 1e-2 * nn.functional.l1_loss(prediction, target)


@contextmanager
def offline() -> Iterator[None]:
    """Serve the peers what they would download: the trunk, and the heads and tables of their packages."""
    state, _ = weights.load("vgg16")
    make = torchvision.models.vgg16

    def vgg16(**_: object) -> nn.Module:
        model = make(weights=None, init_weights=False)
        model.load_state_dict(state, strict=False)
        return model

    def download(url: str, **_: object) -> object:
        if "dists" in url:
            return {name: x.reshape(1, -1, 1, 1) for name, x in weights.load_dists().items()}
        return [LPIPSLoss("vgg").get_buffer(f"head{number}").reshape(1, -1, 1, 1) for number in range(5)]

    piqs = patch("piq.perceptual.vgg16", vgg16) if find_spec("piq") else nullcontext()
    with (
        warnings.catch_warnings(action="ignore"),
        patch("torchvision.models.vgg16", vgg16),
        patch("torch.hub.load_state_dict_from_url", download),
        piqs,
    ):
        yield


def lpips_package(*, channels_last: bool = False) -> Loss:
    """The `lpips` package's own module."""
    import lpips

    model = lpips.LPIPS(net="vgg", verbose=False).requires_grad_(requires_grad=False)
    if channels_last:
        return in_channels_last(model, normalize=True)
    return lambda prediction, target: model(prediction, target, normalize=True).mean()


def lpips_tuned() -> Loss:
    """The same with what speeds it up."""
    import lpips

    return tuned(lpips.LPIPS(net="vgg", verbose=False).requires_grad_(requires_grad=False), normalize=True)


class TorchmetricsLPIPS(nn.Module):
    """Of torchmetrics."""

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.metric = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=True)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of images (N, 3, H, W) in [0, 1]."""
        self.metric.reset()  # it keeps the graphs of what it has seen
        return self.metric(prediction, target)


def piq_lpips() -> Loss:
    """Of piq."""
    import piq

    return piq.LPIPS()


def piq_dists() -> Loss:
    """Of piq."""
    import piq

    return piq.DISTS()


def in_channels_last(model: nn.Module, **options: Any) -> Loss:
    """A loss in channels_last."""
    model = model.to(memory_format=torch.channels_last)

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        images = (x.contiguous(memory_format=torch.channels_last) for x in (prediction, target))
        return model(*images, **options).float().mean()

    return loss


def tuned(model: nn.Module, **options: Any) -> Loss:
    """A loss in channels_last, under autocast to bfloat16."""
    loss = in_channels_last(model, **options)
    return torch.autocast("cpu", torch.bfloat16)(loss)


class Contender(NamedTuple):
    """How a loss is made, the package that it needs, and the contender that it is compared with."""

    make: Callable[[], Loss]
    package: str
    peer: str


_TUNED = "channels_last, bfloat16 autocast"
_ESRGAN = {"weights": "oxford", "check": "off"}
CONTENDERS = {
    "LPIPS: lpips": Contender(lpips_package, "lpips", "LPIPS: lpips"),
    "LPIPS: lpips, channels_last": Contender(lambda: lpips_package(channels_last=True), "lpips", "LPIPS: lpips"),
    f"LPIPS: lpips, {_TUNED}": Contender(lpips_tuned, "lpips", "LPIPS: lpips"),
    "LPIPS: torchmetrics": Contender(TorchmetricsLPIPS, "torchmetrics", "LPIPS: lpips"),
    "LPIPS: piq": Contender(piq_lpips, "piq", "LPIPS: lpips"),
    "LPIPS: vggfeat float32": Contender(lambda: LPIPS(check="off"), "vggfeat", "LPIPS: lpips"),
    "LPIPS: vggfeat bfloat16": Contender(lambda: LPIPS(check="off", precision="bfloat16"), "vggfeat", "LPIPS: lpips"),
    "DISTS: piq": Contender(piq_dists, "piq", "DISTS: piq"),
    "DISTS: vggfeat float32": Contender(lambda: DISTS(check="off"), "vggfeat", "DISTS: piq"),
    "DISTS: vggfeat bfloat16": Contender(lambda: DISTS(check="off", precision="bfloat16"), "vggfeat", "DISTS: piq"),
    "ESRGAN: snippet": Contender(Snippet, "torchvision", "ESRGAN: snippet"),
    "ESRGAN: snippet, channels_last": Contender(lambda: in_channels_last(Snippet()), "torchvision", "ESRGAN: snippet"),
    f"ESRGAN: snippet, {_TUNED}": Contender(lambda: tuned(Snippet()), "torchvision", "ESRGAN: snippet"),
    "ESRGAN: vggfeat float32": Contender(
        lambda: PerceptualLoss.from_recipe("esrgan", **_ESRGAN), "vggfeat", "ESRGAN: snippet"
    ),
    "ESRGAN: vggfeat bfloat16": Contender(
        lambda: PerceptualLoss.from_recipe("esrgan", precision="bfloat16", **_ESRGAN), "vggfeat", "ESRGAN: snippet"
    ),
}


def build(name: str, settings: SimpleNamespace) -> Callable[[], float]:
    """A contender: each call computes the loss of the same images and its gradient, and returns the loss."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(settings.pairs, 3, settings.size, settings.size, generator=generator)
    prediction = (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1).requires_grad_()
    with offline():
        loss = CONTENDERS[name].make()

    def step() -> float:
        value = loss(prediction, target)
        torch.autograd.grad(value, prediction)
        return float(value.detach())

    return step


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds of each contender in each round, and their memory."""
    names = [name for name in timed(CONTENDERS) if find_spec(CONTENDERS[name].package)]
    racing: dict[str, Work] = {}
    values: dict[str, float] = {}
    for name in names:
        racing[name] = work = build(name, settings)
        values[name] = work()
        expected = values.get(CONTENDERS[name].peer, values[name])
        limit = LIMITS["bfloat16" if "bfloat16" in name else "float32"]
        if not abs(values[name] - expected) <= limit * abs(expected):
            raise SystemExit(f"{name} is {values[name]:.5g}, not {expected:.5g} as {CONTENDERS[name].peer} says")
    shape = settings.pairs, settings.size, settings.size
    for precision in PRECISIONS:
        for label, network, last in (("LPIPS", "vgg16", "relu5_3"), ("ESRGAN", "vgg19", "conv5_4")):
            # Both images forward, and one backward.
            forward = Convolutions(network, last, shape, precision)
            there_and_back = Convolutions(network, last, shape, precision, backward=True)
            racing[f"{label}: convolutions alone {precision}"] = lambda one=forward, two=there_and_back: (one(), two())
        racing[f"matrix product {precision}"] = Product(precision)
    return {
        "values": values,
        "seconds": race(racing, settings.rounds, timer(settings), warm_ups=0),
        "peak_mib": dict.fromkeys(names),
    }


def table(found: Found) -> str:
    """A row each; the convolutions alone are torch's own, those of a step."""
    everyone = found["seconds"]
    rows: list[list[str]] = []
    for name, seconds in everyone.items():
        peer = CONTENDERS[name].peer if name in CONTENDERS else ""
        alone = f"{name.split(':')[0]}: convolutions alone {'bfloat16' if 'bfloat16' in name else 'float32'}"
        rows.append(
            [
                name,
                spread(seconds),
                ratio(paired(everyone[peer], seconds)) if peer in everyone else "",
                f"{paired(everyone[alone], seconds):.0%}" if peer and alone in everyone else "",
                mebibytes(found["peak_mib"].get(name)),
            ]
        )
    return markdown(["", "seconds a step", "ratio", "of the convolutions alone", "memory"], rows)


def chart(found: Found) -> Image.Image:
    """Seconds as bars."""
    bars = {name: median(seconds) for name, seconds in found["seconds"].items() if "product" not in name}
    settings = found["settings"]
    title = f"Loss and gradient at {settings['size']} px, batch {settings['pairs']}"
    return plots.bar_chart(bars, title=title, x_label="seconds", width=760)


if __name__ == "__main__":
    command(__doc__, "losses", SETTINGS, build=build, measure=measure, table=table, chart=chart)
