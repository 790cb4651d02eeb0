"""The sections of `on_cuda.py`: each takes a `Bench` and returns its results as plain values."""

import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from dump import make_files
from gpu_timing import DTYPES, Bench, Exact, Work, half, half_name, precisions, told
from losses import Snippet, TorchmetricsLPIPS, offline
from torch import Tensor, nn

from vggfeat import DISTS, LPIPS, FeatureExtractor, GramLoss, PerceptualLoss, recipe, stylize
from vggfeat.dumps.run import Dumping
from vggfeat.networks import arch, weights
from vggfeat.transfer import memory
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.recipe import Recipe

TORCHVISION = {"relu5_3": ("vgg16", "features.29"), "relu5_1": ("vgg19", "features.29")}
OBJECTIVES = ("gram", "gram+meanstd", "covariance", "swd", "nn")


def rates(bench: Bench) -> dict[str, Any]:
    """TFLOP/s of a square product and of a convolution in each precision, and bytes per second of a copy."""
    side, batch = bench.pick(8192, 256), bench.pick(32, 1)
    kept: dict[str, Callable[[], Work]] = {}
    flops: dict[str, float] = {}
    for precision in precisions(bench):
        one = torch.rand(side, side, device=bench.device, dtype=DTYPES[precision])
        kept[f"product {precision}"] = lambda one=one, p=precision: Exact(lambda: one @ one, tf32=p == "tf32")
        flops[f"product {precision}"] = 2 * side**3
        x = torch.rand(batch, 256, 56, 56, device=bench.device, dtype=DTYPES[precision])
        weight = torch.rand(256, 256, 3, 3, device=bench.device, dtype=DTYPES[precision])
        x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))
        kept[f"convolution {precision}"] = lambda x=x, w=weight, p=precision: Exact(
            lambda: F.conv2d(x, w, padding=1), tf32=p == "tf32"
        )
        flops[f"convolution {precision}"] = 2 * x.numel() * weight[0].numel()
    source = torch.empty(bench.pick(2**28, 2**20), device=bench.device)
    target = torch.empty_like(source)
    kept["copy"] = lambda: lambda: target.copy_(source)
    found = bench.race(kept)
    return {"found": found, "flops": flops, "copied": 2 * source.numel() * source.element_size()}


def convolution_flops(network: str, last: str, height: int, width: int) -> float:
    """Of one image forward, up to a layer."""
    sized = arch.sized_layers(network, height, width)
    index = next(number for number, layer in enumerate(sized) if layer.name == last)
    return 2.0 * sized[index].macs


def plain_features(layer: str, device: torch.device) -> nn.Module:
    """Torchvision's own stack up to a layer, with the bundled weights."""
    network, index = TORCHVISION[layer]
    model = getattr(torchvision.models, network)(weights=None, init_weights=False)
    model.load_state_dict(weights.load(network)[0], strict=False)
    stack = model.features[: int(index.removeprefix("features.")) + 1]
    return stack.eval().requires_grad_(requires_grad=False).to(device)


def extraction(bench: Bench) -> dict[str, Any]:
    """relu5_3 of VGG-16 of a batch in memory, without gradients."""
    images = bench.images(bench.pick(64, 1), bench.pick(224, 64))
    plain = plain_features("relu5_3", bench.device)

    def fast() -> Work:
        tuned = plain_features("relu5_3", bench.device).to(dtype=half(bench), memory_format=torch.channels_last)
        return lambda: tuned(images.to(half(bench)).contiguous(memory_format=torch.channels_last))

    def ours(precision: str) -> Callable[[], Work]:
        def build() -> Work:
            extract = FeatureExtractor("vgg16", "relu5_3", precision=precision, check="off", device=bench.device)
            return lambda: extract(images)

        return build

    with torch.inference_mode():
        found = bench.race(
            {
                "torchvision": lambda: lambda: plain(images),
                "torchvision, half precision, channels_last": fast,
                **{f"vggfeat {precision}": ours(precision) for precision in precisions(bench)},
            }
        )
    side = images.shape[-1]
    return {"found": found, "flops": convolution_flops("vgg16", "relu5_3", side, side) * len(images)}


def step(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Work:
    """A loss and its gradient for the prediction."""
    prediction = prediction.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(prediction, target).float().mean(), prediction)


def autocast(loss: nn.Module, bench: Bench, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A peer with what speeds it up: channels_last, and autocast to half precision."""
    loss = loss.to(memory_format=torch.channels_last)

    def call(prediction: Tensor, target: Tensor) -> Tensor:
        pair = (x.contiguous(memory_format=torch.channels_last) for x in (prediction, target))
        with torch.autocast(bench.device.type, half(bench)):
            return loss(*pair, **options)

    return call


def losses(bench: Bench) -> dict[str, Any]:
    """A training step of LPIPS, DISTS and ESRGAN's loss."""
    prediction = bench.images(bench.pick(16, 1), bench.pick(256, 64))
    target = (prediction * 0.9 + 0.05).flip(-1)
    kept: dict[str, Callable[[], Work]] = {}

    def add(name: str, make: Callable[[], Callable[[Tensor, Tensor], Tensor]]) -> None:
        def build() -> Work:
            with offline():
                return step(make(), prediction, target)

        kept[name] = build

    if find_spec("lpips"):
        import lpips

        def package() -> nn.Module:
            model = lpips.LPIPS(net="vgg", verbose=False).to(bench.device)
            return model.requires_grad_(requires_grad=False)

        add("LPIPS: lpips", package)
        if not bench.small:  # a CPU may emulate half precision
            add("LPIPS: lpips, half precision, channels_last", lambda: autocast(package(), bench))
    if find_spec("torchmetrics"):
        add("LPIPS: torchmetrics", lambda: TorchmetricsLPIPS().to(bench.device))
    add("ESRGAN: snippet", lambda: Snippet().to(bench.device))
    if not bench.small:
        add("ESRGAN: snippet, half precision, channels_last", lambda: autocast(Snippet().to(bench.device), bench))
    for precision in precisions(bench):
        options = {"check": "off", "precision": precision, "device": bench.device}
        add(f"LPIPS: vggfeat {precision}", lambda o=options: LPIPS("vgg", **o))
        add(f"DISTS: vggfeat {precision}", lambda o=options: DISTS(**o))
        add(
            f"ESRGAN: vggfeat {precision}",
            lambda o=options: PerceptualLoss.from_recipe("esrgan", weights="oxford", **o),
        )
    side, pairs = prediction.shape[-1], len(prediction)
    # Both images forward, and one back to its pixels.
    flops = {
        kind: 3 * pairs * convolution_flops(network, last, side, side)
        for kind, network, last in (
            ("LPIPS", "vgg16", "relu5_3"),
            ("DISTS", "vgg16", "relu5_3"),
            ("ESRGAN", "vgg19", "conv5_4"),
        )
    }
    return {"found": bench.race(kept), "flops": flops}


def plain_gatys(bench: Bench, side: int) -> Work:
    """A step of what tutorials do: torchvision's VGG-19, Gram matrices at five layers, torch's L-BFGS."""
    stack = plain_features("relu5_1", bench.device)
    taps = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 29: "relu5_1"}
    mean, std = (
        torch.tensor(v, device=bench.device).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def grams(image: Tensor) -> list[Tensor]:
        x, found = (image - mean) / std, []
        for number, layer in enumerate(stack):
            x = layer(x)
            if number in taps:
                flat = x.flatten(2)
                found.append(flat @ flat.transpose(1, 2) / flat.shape[2])
        return found

    with torch.no_grad():
        wanted = grams(bench.photograph("mosaic.jpg", side))
    image = bench.photograph("china.jpg", side).requires_grad_()
    optimiser = torch.optim.LBFGS([image], max_iter=1, history_size=10)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = sum(F.mse_loss(one, other) for one, other in zip(grams(image), wanted, strict=True))
        loss.backward()
        return loss

    return lambda: optimiser.step(closure)


def painting_step(bench: Bench, side: int, precision: str, **options: Any) -> Work:
    """A step of vggfeat at full size, with the targets already found."""
    chosen = recipe("default", steps=10**6, first_size=65536)
    run = stylize(
        bench.photograph("china.jpg", side),
        bench.photograph("mosaic.jpg", min(side, 1024)),
        chosen,
        size=side,
        precision=precision,
        device=bench.device,
        **options,
    )
    steps = iter(run)
    next(steps)
    return lambda: next(steps)


def painting(bench: Bench) -> dict[str, Any]:
    """A step of the default recipe at several sizes."""
    found: dict[str, Any] = {}
    flops: dict[str, float] = {}
    for side in bench.pick((256, 512, 1024, 2048, 4096), (64,)):
        if found and time.monotonic() > bench.deadline:
            break
        contenders: dict[str, Callable[[], Work]] = {}
        if side <= 2048:
            contenders[f"{side} px: plain Gatys loop"] = lambda s=side: plain_gatys(bench, s)
        for precision in precisions(bench):
            contenders[f"{side} px: vggfeat {precision}"] = lambda s=side, p=precision: painting_step(bench, s, p)
        best = precisions(bench)[-1]
        if bench.device.type == "cuda" and side <= 1024:
            contenders[f"{side} px: vggfeat {best}, compiled"] = lambda s=side, p=best: painting_step(
                bench, s, p, compiled=True
            )
        found |= bench.race(contenders)
        flops[f"{side} px"] = 2 * convolution_flops("vgg19", "relu5_1", side, side)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return {"found": found, "flops": flops}


def dump(bench: Bench) -> dict[str, Any]:
    """Pictures per second from JPEG files to the mean of relu5_3 on the disk, and of the network alone."""
    count = bench.pick(2048, 8)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        once = make_files(Path(folder), min(count, 256))
        pictures = (once * -(-count // len(once)))[:count]
        for precision in precisions(bench)[-1:]:
            run = Dumping(
                pictures,
                Path(folder, precision),
                layers="relu5_3",
                reduce="mean",
                precision=precision,
                device=str(bench.device),
                shard_size=bench.pick(256, 4),
            )
            counts = [(progress.done, time.perf_counter()) for progress in run]
            found[precision] = [(b - a) / (end - began) for (a, began), (b, end) in itertools.pairwise(counts)]
    return {"pictures_per_second": found, "pictures": count}


def prediction(bench: Bench) -> dict[str, Any]:
    """The peak of a painting step over what was predicted, for each objective, whole and in blocks.

    On a CPU, where torch does not tell its peak, the runs are made and their peak is left out.
    """
    found: dict[str, Any] = {}
    side = bench.pick(1024, 128)
    for objective, whole in itertools.product(bench.pick(OBJECTIVES, OBJECTIVES[:1]), (True, False)):
        name = f"{objective}, {'whole' if whole else 'blocks'}"
        chosen = recipe("default", objective=objective, steps=10**6, first_size=65536)
        precision = half_name(bench) if bench.device.type == "cuda" else "float32"
        try:
            extract = extractor(chosen, chosen.layer_weights(), bench.device, precision)
            limit = None if whole else memory.predict(extract, chosen, side, side) * 3 // 4
            found[name] = peak_of_a_step(bench, chosen, side, precision, limit)
        except Exception as error:  # noqa: BLE001 (told, so that the others are still measured)
            found[name] = told(error)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return {"found": found, "side": side}


def peak_of_a_step(bench: Bench, chosen: Recipe, side: int, precision: str, limit: int | None) -> dict[str, Any]:
    """MiB of the fourth step, when the optimiser has a history, and what was predicted."""
    before = bench.allocated()
    run = stylize(
        bench.photograph("china.jpg", side),
        bench.photograph("mosaic.jpg", side),
        chosen,
        size=side,
        precision=precision,
        device=bench.device,
        memory_limit=limit,
    )
    steps = iter(run)
    for _ in range(bench.pick(3, 1)):
        next(steps)
    bench.allocated()
    next(steps)
    (blocks,) = run.blocks
    extract = extractor(chosen, chosen.layer_weights(), bench.device, precision)
    predicted = memory.predict(extract, chosen, side, side, blocks)
    return {"peak_mib": bench.peak_mib(before), "predicted_mib": predicted / 2**20, "blocks": blocks is not None}


def equality(bench: Bench) -> dict[str, Any]:
    """Relative differences of each metric between CPU and device, and whether a painting repeats to the bit."""
    one, other = (bench.photograph(name, bench.pick(192, 64)).cpu() for name in ("china.jpg", "chelsea.jpg"))
    makers: dict[str, Callable[..., nn.Module]] = {
        "LPIPS vgg": lambda **o: LPIPS("vgg", **o),
        "LPIPS alex": lambda **o: LPIPS("alex", **o),
        "DISTS": DISTS,
        "ESRGAN": lambda **o: PerceptualLoss.from_recipe("esrgan", weights="oxford", **o),
    }
    metrics: dict[str, float] = {}
    for name, make in makers.items():
        with torch.no_grad():
            values = [
                float(make(device=device, check="off")(one.to(device), other.to(device)))
                for device in ("cpu", bench.device)
            ]
        metrics[name] = abs(values[1] - values[0]) / abs(values[0])
    extracts = [
        FeatureExtractor("vgg19", ["relu1_2", "relu3_3", "relu5_3"], check="off", device=device)
        for device in ("cpu", bench.device)
    ]
    with torch.no_grad():
        expected, seen = (extract(one.to(extract.offset.device)) for extract in extracts)
        gram = GramLoss(list(expected))
        grams = [
            float(gram(features, gram.target({name: x.roll(1, 1) for name, x in features.items()})))
            for features in (expected, seen)
        ]
    for name, features in expected.items():
        difference = (seen[name].cpu() - features).abs().max() / features.abs().max()
        metrics[f"features {name}, of the largest"] = float(difference)
    metrics["Gram loss"] = abs(grams[1] - grams[0]) / grams[0]
    paintings: dict[str, bool] = {}
    for objective in bench.pick(OBJECTIVES, OBJECTIVES[:1]):
        chosen = recipe("default", objective=objective, steps=bench.pick(20, 1), first_size=64)
        size = bench.pick(256, 64)
        first, second = (
            stylize(
                bench.photograph("china.jpg", size),
                bench.photograph("mosaic.jpg", size),
                chosen,
                size=size,
                device=bench.device,
            ).result()
            for _ in range(2)
        )
        paintings[objective] = bool(torch.equal(first, second))
    return {"metrics": metrics, "same_painting_twice": paintings}


Sections = Mapping[str, Callable[[Bench], dict[str, Any]]]
SECTIONS: Sections = {
    "equality": equality,
    "rates": rates,
    "losses": losses,
    "painting": painting,
    "extraction": extraction,
    "memory": prediction,
    "dump": dump,
}
