"""Measure how far vggfeat is from other implementations and from published values, and fill in the tables of two pages.

    python docs/exactness.py      # rewrites the tables of exact.md and reproduces.md, in about a minute

Needs the extra `test`, whose packages are the oracles. They run on the weights that vggfeat ships: nothing is fetched.
"""

import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import DISTS_pytorch
import DMM_PyTorch
import lpips
import numpy as np
import piq
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.spatial.distance
import skimage.io
import skimage.metrics
import torch
import torchvision
from torch import Tensor

import vggfeat
from vggfeat import ADISTS, DISTS, DMM, LPIPS, STLPIPS, FeatureExtractor, arch, read_picture, weights, write_picture
from vggfeat.losses.steadiness import aligned

DOCS = Path(__file__).parent
CAT = DOCS.parent / "assets" / "images" / "chelsea.jpg"


class Measured(NamedTuple):
    """One quantity, its oracle, how to measure the difference, and the difference that a test allows.

    The difference is the largest absolute one over the largest absolute value of the oracle.
    """

    quantity: str
    oracle: str
    difference: Callable[[], float]
    allowed: float


class Published(NamedTuple):
    """One published figure as it is written, its source, and how to compute ours."""

    figure: str
    source: str
    published: str
    ours: Callable[[], float]

    def rounded(self, value: float) -> str:
        """`value` with as many decimals as the published figure."""
        return f"{value:.{self.decimals}f}"

    @property
    def decimals(self) -> int:
        """How many decimals the published figure has."""
        return len(self.published.partition(".")[2])


def pairs(height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    """Two pairs, noise and a photograph with its blurred copy: (2, 3, height, width) in [0, 1]."""
    photograph = read_picture(CAT).rgb[..., 100 : 100 + height, 150 : 150 + width]
    blurred = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(photograph, 4), scale_factor=4)
    noise = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    return torch.cat([noise[:1], photograph]), torch.cat([noise[1:], blurred])


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference over the largest absolute value of `theirs`."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def features() -> tuple[Tensor, Tensor]:
    """The first 48 channels of relu2_1 of the second pair: (1, 48, 32, 48) each."""
    extract = FeatureExtractor("vgg16", "relu2_1")
    return tuple(extract(images[1:])["relu2_1"][:, :48] for images in pairs())


def every_layer(network: str) -> float:
    """The worst layer of a network, with random weights, against the modules of torchvision's builder."""
    name, _, normalised = network.partition("_")
    letter = dict(zip(("vgg11", "vgg13", "vgg16", "vgg19"), "ABDE", strict=True))[name]
    torch.manual_seed(0)
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[letter], batch_norm=bool(normalised)).eval()
    for module in theirs:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    extract = FeatureExtractor(network, "*", weights=state, mean=(0, 0, 0), std=(1, 1, 1))
    x, worst = pairs()[0], 0.0
    ours = extract(x)
    with torch.no_grad():
        for value, module in zip(ours.values(), theirs, strict=True):
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
            x = module(x)
            worst = max(worst, apart(value, x))
    return worst


def untrained() -> AbstractContextManager[object]:
    """Build only the features of torchvision's VGG-16: its head, which no oracle reads, is slow to initialise."""
    network = torch.nn.Module()
    network.features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    return mock.patch("torchvision.models.vgg16", return_value=network)


@cache
def lpips_package(net: str, version: str) -> torch.nn.Module:
    """The module of `lpips` with the bundled weights in it."""
    with untrained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that warns
        model = lpips.LPIPS(net=net, version=version, pnet_rand=True, verbose=False)
    state, _ = weights.load({"vgg": "vgg16", "alex": "alexnet"}[net])
    model.net.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in model.net.state_dict()})
    return model


def lpips_value(net: str, version: str, *, exact: bool = False) -> float:
    """LPIPS of the pairs."""
    x, y = (2 * images - 1 for images in pairs())
    ours = LPIPS(net, version=version, exact=exact, input_range="signed", reduction="none")
    return apart(ours(x, y), lpips_package(net, version)(x, y).flatten())


def lpips_gradient() -> float:
    """The gradient of LPIPS with respect to the first image."""
    gradients = []
    for model in (LPIPS("vgg", input_range="signed", reduction="none"), lpips_package("vgg", "0.1")):
        x, y = (2 * images - 1 for images in pairs())
        model(x.requires_grad_(), y).sum().backward()
        gradients.append(x.grad)
    return apart(*gradients)


def dists_value() -> float:
    """DISTS of the pairs."""
    with untrained():
        model = DISTS_pytorch.DISTS(load_weights=False)
    state, _ = weights.load("vgg16")
    keys = [key for key in model.state_dict() if key.startswith("stage") and not key.endswith("filter")]
    model.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in keys}, strict=False)
    tables = torch.load(f"{DISTS_pytorch.__path__[0]}/weights.pt", map_location="cpu", weights_only=True)
    model.alpha.data, model.beta.data = tables["alpha"], tables["beta"]
    return apart(DISTS(reduction="none")(*pairs()), model(*pairs()))


def stlpips_value() -> float:
    """ST-LPIPS of the pairs. The package imports two others, which it does not use here."""
    unused = {"IPython": SimpleNamespace(embed=None), "torchsummary": SimpleNamespace(summary=None)}
    with mock.patch.dict(sys.modules, unused), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stlpips_pytorch import stlpips

        model = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    theirs = model(*(2 * images - 1 for images in pairs())).flatten()
    return apart(STLPIPS(reduction="none")(*pairs()), theirs)


def dmm_value() -> float:
    """DMM of larger pairs."""
    state, _ = weights.load("vgg16")
    with untrained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = torchvision.models.vgg16().features
        features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
        model = DMM_PyTorch.DMM()
    return apart(DMM(reduction="none")(*pairs(124, 124)), model(*pairs(124, 124)))


def window_moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """The means, variances and covariance of features (C, H, W) in a Gaussian window of 21, or of all positions."""
    if min(x.shape[1:]) < 21:
        means = [z.mean((1, 2), keepdims=True) for z in (x, y)]
        products = [(a * b).mean((1, 2), keepdims=True) for a, b in ((x, x), (y, y), (x, y))]
    else:
        line = np.exp(-(np.arange(-10, 11) ** 2) / (2 * 7**2))
        window = np.outer(line, line) / line.sum() ** 2

        def mean(z: np.ndarray) -> np.ndarray:
            return np.stack([scipy.signal.convolve2d(each, window, "valid") for each in z])

        means, products = [mean(z) for z in (x, y)], [mean(z) for z in (x * x, y * y, x * y)]
    a, b = means
    return a, b, products[0] - a * a, products[1] - b * b, products[2] - a * b


def adists(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> float:
    """Ding et al. (2021), of the features {layer: (C, H, W)} of a picture and of the reference."""
    logistic = dict(zip(list(x)[1:], ((1.0, 0.29), (2.0, 0.52), (2.95, 0.56), (0.97, 0.25), (0.21, 0.10)), strict=True))
    alike, texture = 0.0, np.zeros(())
    for name in reversed(x):
        mean_x, mean_y, var_x, var_y, covariance = window_moments(x[name], y[name])
        if name in logistic:
            centre, width = logistic[name]
            texture = 1 / (1 + np.exp(-((var_y / (mean_y + 1e-12)).mean(0) - centre) / width))
        one = (2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6)
        other = (2 * covariance + 1e-6) / (var_x + var_y + 1e-6)
        alike += ((1 - texture) * one + texture * other).mean((1, 2)).sum()
    return 1 - alike / sum(len(z) for z in x.values())


def adists_value() -> float:
    """A-DISTS of smaller pairs."""
    criterion = ADISTS(reduction="none")
    x, y = (
        {name: criterion.features(images)[name].double().numpy() for name in criterion.loss.layers}
        for images in pairs(44, 52)
    )
    theirs = [adists(*({name: z[row] for name, z in each.items()} for each in (x, y))) for row in range(2)]
    return apart(criterion(*pairs(44, 52)), torch.tensor(theirs))


def nearest(x: np.ndarray, y: np.ndarray) -> float:
    """The mean cosine distance to the nearest, after the mean of `y` is subtracted from both."""
    x, y = ((z - y.mean(1, keepdims=True)).T for z in (x, y))
    return scipy.spatial.distance.cdist(x, y, "cosine").min(1).mean()


def warping() -> float:
    """The warping error of three frames of noise under a flow of fractions of pixels."""
    clip = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    places = np.mgrid[:40, :56].astype(float)

    def motion(first: object, second: object) -> Tensor:
        apart = first.number - second.number
        return torch.tensor([1.3 * apart, -0.6 * apart]).reshape(1, 2, 1, 1).expand(1, 2, 40, 56)

    theirs = []
    for [pair] in aligned(clip.split(1), clip.split(1), flow=motion):
        now, then = (clip[number - 1].double().numpy() for number in (pair.number, pair.against))
        there = places + np.array([-0.6, 1.3]).reshape(2, 1, 1)
        warped = np.stack([scipy.ndimage.map_coordinates(each, there, order=1) for each in then])
        theirs.append(((now - warped) ** 2)[:, pair.visible[0, 0].numpy()].mean())
    return apart(vggfeat.WarpingError(flow=motion)(clip, clip), torch.tensor(np.mean(theirs)))


def loss(one: vggfeat.ContentLoss, theirs: Callable[[np.ndarray, np.ndarray], float]) -> float:
    """A loss over `layer` against a definition that reads the features in float64, (C, H·W)."""
    x, y = features()
    ours = one({"layer": x}, one.target({"layer": y}))
    return apart(ours, torch.tensor(theirs(*(z[0].flatten(1).double().numpy() for z in (x, y)))))


def gram() -> float:
    """The Gram matrix of features."""
    x, _ = features()
    return apart(vggfeat.gram(x, divide_by="none"), piq.StyleLoss.gram_matrix(x).reshape(1, 48, 48))


def mean_std(x: np.ndarray, y: np.ndarray) -> float:
    """The mean square differences of channel means and of standard deviations."""
    return ((x.mean(1) - y.mean(1)) ** 2).mean() + ((x.std(1) - y.std(1)) ** 2).mean()


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """The squared 2-Wasserstein distance of two Gaussians, over C."""
    a, b = (np.cov(z, bias=True) for z in (x, y))
    root = scipy.linalg.sqrtm(a)
    cross = scipy.linalg.sqrtm(root @ b @ root).real
    return (((x.mean(1) - y.mean(1)) ** 2).sum() + np.trace(a + b - 2 * cross)) / len(x)


def contextual(x: np.ndarray, y: np.ndarray) -> float:
    """Mechrez et al. (2018), with bandwidth 0.5."""
    x, y = (z - y.mean(1, keepdims=True) for z in (x, y))
    distance = 1 - (x / np.linalg.norm(x, axis=0)).T @ (y / np.linalg.norm(y, axis=0))
    weight = np.exp((1 - distance / (distance.min(1, keepdims=True) + 1e-5)) / 0.5)
    return -np.log((weight / weight.sum(1, keepdims=True)).max(0).mean())


def variation() -> float:
    """The total variation of images."""
    x, _ = pairs()
    rows, columns = (np.diff(x.double().numpy(), axis=axis) ** 2 for axis in (2, 3))
    theirs = rows.mean((1, 2, 3)) + columns.mean((1, 2, 3))
    return apart(vggfeat.total_variation(x), torch.from_numpy(theirs))


def pixels(metric: str) -> float:
    """A metric of `vggfeat.compare` against scikit-image, on two files."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("a.png", "b.png")]
        for file, images in zip(files, pairs(), strict=True):
            write_picture(file, images[1:])
        ours = vggfeat.compare(*files, metrics=(metric,)).mean[metric]
        a, b = (skimage.io.imread(file) / 255 for file in files)
    if metric == "psnr":
        theirs = skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1)
    else:
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        theirs = skimage.metrics.structural_similarity(a, b, channel_axis=2, data_range=1, **options)
    return abs(ours - theirs) / theirs


NETWORKS = ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
EXACT = (
    *(
        Measured(
            f"all layers of {name}",
            "torchvision's builder, same random weights",
            lambda name=name: every_layer(name),
            1e-4,
        )
        for name in NETWORKS
    ),
    *(
        Measured(
            f"LPIPS-{net}, v{version}",
            "`lpips` 0.1.4",
            lambda net=net, version=version: lpips_value(net, version),
            1e-4,
        )
        for net in ("vgg", "alex")
        for version in ("0.1", "0.0")
    ),
    Measured("LPIPS-vgg, v0.1, `exact=True`", "`lpips` 0.1.4", lambda: lpips_value("vgg", "0.1", exact=True), 0.0),
    Measured("gradient of LPIPS-vgg, v0.1", "`lpips` 0.1.4", lpips_gradient, 1e-3),
    Measured("DISTS", "`DISTS_pytorch` 0.1", dists_value, 1e-4),
    Measured("ST-LPIPS-alex", "`stlpips_pytorch` 0.0.2", stlpips_value, 1e-4),
    Measured("A-DISTS", "definition in float64", adists_value, 1e-4),
    Measured("DMM", "`DMM_PyTorch` 0.1", dmm_value, 1e-4),
    Measured("PSNR", "scikit-image", lambda: pixels("psnr"), 1e-5),
    Measured("SSIM", "scikit-image", lambda: pixels("ssim"), 1e-5),
    Measured("`gram`, undivided", "`piq` 0.8", gram, 1e-5),
    Measured("`total_variation`", "definition in float64", variation, 1e-5),
    Measured(
        "`ContentLoss`",
        "definition in float64",
        lambda: loss(vggfeat.ContentLoss("layer"), lambda x, y: ((x - y) ** 2).mean()),
        1e-5,
    ),
    Measured("`MeanStdLoss`", "definition in float64", lambda: loss(vggfeat.MeanStdLoss("layer"), mean_std), 1e-4),
    Measured(
        "`CovarianceLoss`",
        "definition, by SciPy's matrix square root",
        lambda: loss(vggfeat.CovarianceLoss("layer"), wasserstein),
        1e-3,
    ),
    Measured(
        "`ContextualLoss`", "definition in float64", lambda: loss(vggfeat.ContextualLoss("layer"), contextual), 1e-3
    ),
    Measured(
        "`NearestNeighbourLoss`",
        "definition in float64",
        lambda: loss(vggfeat.NearestNeighbourLoss("layer"), nearest),
        1e-4,
    ),
    Measured("`WarpingError`", "definition, warped by SciPy over the same visible pixels", warping, 1e-4),
)


def content(layers: str) -> float:
    """All ones against all zeros: squared differences summed over channels, averaged over space."""
    extract = FeatureExtractor("vgg16", layers)
    one, zero = extract(torch.ones(1, 3, 256, 256)), extract(torch.zeros(1, 3, 256, 256))
    return sum((one[name] - zero[name]).square().sum(1).mean() for name in one).item()


def dists_of_noise() -> float:
    """The mean over ten pairs of noise."""
    torch.manual_seed(42)
    return DISTS()(torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)).item()


def lpips_of_noise() -> float:
    """The mean over ten pairs of noise, drawn after the network is initialised, as in the published example."""
    criterion = LPIPS("vgg", input_range="signed", check="off")
    torch.manual_seed(123)
    torchvision.models.vgg16(weights=None, init_weights=False)
    for channels in (64, 128, 256, 512, 512):
        torch.nn.Conv2d(channels, 1, 1, bias=False)
    return criterion(torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)).item()


def operations(network: str) -> float:
    """The multiply-accumulates of a whole network for 224x224, in 10⁹: one a weight in the head."""
    head = sum(math.prod(shape) for name, shape in arch.head_shapes(network).items() if name.endswith("weight"))
    return (arch.sized_layers(network, 224, 224)[-1].macs + head) / 1e9


PIQ = "piq, issue 258: 1x3x256x256 of ones against zeros"
TORCHVISION = "torchvision, `VGG..._Weights.meta`"
REPRODUCED = (
    Published("content loss of relu1_2", PIQ, "43.9598", lambda: content("relu1_2")),
    Published("content loss of relu1_2 + relu2_2", PIQ, "214.3362", lambda: content("relu1_2,relu2_2")),
    Published("DISTS of ten pairs of noise, seed 42", "torchmetrics, `image/dists.py`", "0.1882", dists_of_noise),
    Published(
        "LPIPS-vgg of ten pairs of noise, seed 123",
        "torchmetrics 0.11, `image/lpip.py`",
        "0.3566",
        lpips_of_noise,
    ),
)
REPRODUCED += (
    *(
        Published(f"parameters of {name}", TORCHVISION, published, lambda name=name: arch.count_parameters(name).total)
        for name, published in (
            ("vgg11", "132863336"),
            ("vgg16", "138357544"),
            ("vgg16_bn", "138365992"),
            ("vgg19", "143667240"),
        )
    ),
    *(
        Published(f"multiply-accumulates of {name}, 10⁹", TORCHVISION, published, lambda name=name: operations(name))
        for name, published in (("vgg11", "7.609"), ("vgg13", "11.308"), ("vgg16", "15.470"), ("vgg19", "19.632"))
    ),
)


def table(head: str, rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, its columns after the second aligned right."""
    cells = head.split("|")
    line = " | ".join("---:" if number > 1 else "---" for number in range(len(cells)))
    return "\n".join([f"| {' | '.join(cells)} |", f"| {line} |", *(f"| {' | '.join(row)} |" for row in rows)])


def exact_table() -> str:
    """The table of `exact.md`."""
    rows = [(one.quantity, one.oracle, f"{one.difference():.1e}", f"{one.allowed:.0e}") for one in EXACT]
    return table("quantity|oracle|largest difference|a test allows", rows)


def reproduced_table() -> str:
    """The table of `reproduces.md`."""
    rows = [(one.figure, one.source, one.published, one.rounded(one.ours())) for one in REPRODUCED]
    return table("figure|published by|published|ours", rows)


def fill(page: Path, text: str) -> None:
    """Replace what stands between the two `<!-- table -->` of a page."""
    before, _, after = page.read_text("utf-8").split("<!-- table -->\n")
    page.write_text(f"{before}<!-- table -->\n{text}\n<!-- table -->\n{after}", "utf-8")


if __name__ == "__main__":
    fill(DOCS / "exact.md", exact_table())
    fill(DOCS / "reproduces.md", reproduced_table())
