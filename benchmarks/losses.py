"""Time LPIPS and the ESRGAN loss against the `lpips` package and the usual torchvision snippet, in one run.

    python benchmarks/losses.py [--pairs 8] [--size 256] [--repeats 5]

Each contender takes the same images and computes the loss and its gradient for the prediction. They take turns, so
that whatever else the machine does falls on all; medians and their ratios are printed, as a table and as JSON.
The peers get the bundled weights, which changes no timing.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import lpips
import torch
import torchvision
from torch import Tensor, nn

from vggfeat import LPIPS, PerceptualLoss, weights

Loss = Callable[[Tensor, Tensor], Tensor]


def lpips_package() -> Loss:
    """The `lpips` package's own module, as its users call it; its heads frozen, which saves it their gradient."""
    with warnings.catch_warnings(action="ignore"):  # it calls torchvision with arguments that warn
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(requires_grad=False)
    state, _ = weights.load("vgg16")
    model.net.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in model.net.state_dict()})
    return lambda prediction, target: model(prediction, target, normalize=True).mean()


class Snippet(nn.Module):
    """What people paste for ESRGAN: torchvision's features up to conv5_4, the target detached, the mean difference."""

    def __init__(self) -> None:
        super().__init__()
        features = torchvision.models.vgg19(weights=None).features
        state, _ = weights.load("vgg19")
        features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
        self.features = features[:35].eval().requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of images (N, 3, H, W) in [0, 1]."""
        x, y = (self.features((images - self.mean) / self.std) for images in (prediction, target.detach()))
        return nn.functional.l1_loss(x, y) + 1e-2 * nn.functional.l1_loss(prediction, target)


def contenders() -> dict[str, tuple[str, Loss]]:
    """By name: what each is compared with, and the loss."""
    esrgan = {"weights": "oxford", "check": "off"}
    return {
        "lpips package": ("lpips package", lpips_package()),
        "vggfeat LPIPS float32": ("lpips package", LPIPS(check="off")),
        "vggfeat LPIPS bfloat16": ("lpips package", LPIPS(check="off", precision="bfloat16")),
        "torchvision snippet": ("torchvision snippet", Snippet()),
        "vggfeat esrgan float32": ("torchvision snippet", PerceptualLoss.from_recipe("esrgan", **esrgan)),
        "vggfeat esrgan bfloat16": (
            "torchvision snippet",
            PerceptualLoss.from_recipe("esrgan", precision="bfloat16", **esrgan),
        ),
    }


def step(loss: Loss, prediction: Tensor, target: Tensor) -> float:
    """Seconds of the loss and its gradient."""
    began = time.perf_counter()
    torch.autograd.grad(loss(prediction, target), prediction)
    return time.perf_counter() - began


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(options.pairs, 3, options.size, options.size, generator=generator)
    prediction = (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1).requires_grad_()
    racing = contenders()
    seconds: dict[str, list[float]] = {name: [] for name in racing}
    for turn in range(options.repeats + 1):
        for name, (_, loss) in racing.items():
            taken = step(loss, prediction, target)
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, (peer, _) in racing.items():
        spread = max(seconds[name]) - min(seconds[name])
        print(f"{name:26} {medians[name]:7.3f} s  (spread {spread:.3f})  {medians[peer] / medians[name]:5.2f}x {peer}")
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options), "s": medians}))


if __name__ == "__main__":
    main()
