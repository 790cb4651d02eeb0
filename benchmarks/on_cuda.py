"""Everything that a GPU is promised to do, tested and measured by one command on any machine with an NVIDIA card.

    python benchmarks/on_cuda.py [--minutes 8] [--out benchmarks/results] [--device cuda] [--sections rates,losses]

The command runs the tests marked `cuda`, then its sections in order of importance, until the minutes are over:

- equality: each metric on the CPU and on the device, and one painting made twice from the same seed.
- rates: matrix products, convolutions and copies, which are the rooflines of what follows.
- losses: a step of LPIPS, DISTS and the ESRGAN loss, beside lpips, torchmetrics and the usual snippet.
- painting: a step of style transfer from 256 to 4096 px, beside a plain Gatys loop.
- extraction: relu5_3 of VGG-16, beside torchvision.
- memory: the peak of a painting step over what `vggfeat.transfer.memory` predicts, for each objective.
- dump: pictures per second from JPEG files to arrays.

Contenders take turns. A time is the median over the rounds of the time between two CUDA events, after a warm-up. The
results are written after each section, so that an interrupted run loses only the section it was in; a section that
fails leaves its error in the results. Peers that are not installed are left out. `--device cpu` does a little of
everything on a CPU, to see that the command works.
"""

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from dump import make_files
from losses import Snippet, TorchmetricsLPIPS, offline
from measuring import Found, described, machine, markdown, processor, ratio, rounded
from torch import Tensor, nn

from vggfeat import DISTS, LPIPS, FeatureExtractor, GramLoss, PerceptualLoss, files, read_picture, recipe, stylize
from vggfeat.dumps.run import Dumping
from vggfeat.networks import arch, weights
from vggfeat.transfer import memory
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.recipe import Recipe

ASSETS = Path(__file__).parents[1] / "assets/images"
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SETTINGS = {"minutes": (8.0, 8.0)}
TORCHVISION = {"relu5_3": ("vgg16", "features.29"), "relu5_1": ("vgg19", "features.29")}
Work = Callable[[], object]


class Clock:
    """Seconds that the device works: between two CUDA events, or on the wall clock where there are none."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Work, calls: int) -> float:
        """Seconds a call."""
        if self.device.type != "cuda":
            began = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - began) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        first.record()
        for _ in range(calls):
            work()
        last.record()
        torch.cuda.synchronize(self.device)
        return first.elapsed_time(last) / 1e3 / calls


class Bench(NamedTuple):
    """The device, how much to do, and when to stop."""

    device: torch.device
    small: bool
    deadline: float
    rounds: int = 5

    def pick(self, full: Any, small: Any) -> Any:
        """The amount of work: `small` on a CPU."""
        return small if self.small else full

    def race(self, contenders: Mapping[str, Callable[[], Work]]) -> dict[str, dict[str, Any]]:
        """{name: seconds and peak memory of a call}; contenders are built first, and take turns.

        One that fails, for example for want of memory, is told with its error.
        """
        clock, ready, found = Clock(self.device), {}, {}
        for name, build in contenders.items():
            try:
                work = build()
                work()  # libraries choose their algorithms
                before = self.allocated()
                taken = clock(work, 1)
                ready[name] = work, max(1, min(50, int(self.pick(0.05, 0) / max(taken, 1e-6))))
                found[name] = {"peak_mib": self.peak_mib(before)}
            except Exception as error:  # noqa: BLE001 (told, so that the others are still measured)
                found[name] = told(error)
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(self.pick(self.rounds, 1)):
            if turn and time.monotonic() > self.deadline:
                break
            for name, (work, calls) in ready.items():
                seconds[name].append(clock(work, calls))
        return {name: {"seconds": seconds.get(name, []), **told} for name, told in found.items()}

    def allocated(self) -> int | None:
        """Bytes that tensors take on the device now, from where `peak_mib` counts; None on a CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak_mib(self, before: int | None) -> float | None:
        """The most that was taken since, on top of `before`."""
        return None if before is None else (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def images(self, count: int, side: int) -> Tensor:
        """Noise in [0, 1], (count, 3, side, side), the same each time."""
        return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(self.device)

    def photograph(self, name: str, side: int) -> Tensor:
        """A bundled picture, cut to a square and scaled to `side`: (1, 3, side, side)."""
        rgb = read_picture(ASSETS / name).rgb
        least = min(rgb.shape[2:])
        scaled = F.interpolate(rgb[..., :least, :least], (side, side), mode="bilinear", antialias=True)
        return scaled.clamp(0, 1).to(self.device)


def told(error: Exception) -> dict[str, Any]:
    """An error as a result: its kind and its first line."""
    return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def seconds(found: Mapping[str, Any]) -> float | None:
    """The median of what a contender took."""
    return statistics.median(found["seconds"]) if found.get("seconds") else None


def precisions(bench: Bench) -> list[str]:
    """Those that `FeatureExtractor` knows and that are worth timing on the device."""
    if bench.device.type != "cuda":
        return ["float32"]
    capable = torch.cuda.get_device_capability(bench.device) >= (8, 0)
    return ["float32", "tf32", "float16", "bfloat16"] if capable else ["float32", "float16"]


class Exact:
    """TF32 allowed or not, for products and convolutions, while a contender of torch's own works."""

    def __init__(self, work: Work, *, tf32: bool) -> None:
        self.work, self.setting = work, "tf32" if tf32 else "ieee"

    def __call__(self) -> object:
        """The work under the setting."""
        places = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        before = [place.fp32_precision for place in places]
        for place in places:
            place.fp32_precision = self.setting
        try:
            return self.work()
        finally:
            for place, setting in zip(places, before, strict=True):
                place.fp32_precision = setting


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


def half_name(bench: Bench) -> str:
    """The half precision that people choose on this device."""
    return "bfloat16" if bench.small or "bfloat16" in precisions(bench) else "float16"


def half(bench: Bench) -> torch.dtype:
    """The same as a dtype."""
    return DTYPES[half_name(bench)]


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
        add("LPIPS: lpips, half precision, channels_last", lambda: autocast(package(), bench))
    if find_spec("torchmetrics"):
        add("LPIPS: torchmetrics", lambda: TorchmetricsLPIPS().to(bench.device))
    add("ESRGAN: snippet", lambda: Snippet().to(bench.device))
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


OBJECTIVES = ("gram", "gram+meanstd", "covariance", "swd", "nn")


def prediction(bench: Bench) -> dict[str, Any]:
    """The peak of a painting step over what was predicted, for each objective, whole and in blocks.

    On a CPU, where torch does not tell its peak, the runs are made and their peak is left out.
    """
    found: dict[str, Any] = {}
    side = bench.pick(1024, 256)
    for objective, whole in itertools.product(OBJECTIVES, (True, False)):
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
    for objective in OBJECTIVES:
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


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "equality": equality,
    "rates": rates,
    "losses": losses,
    "painting": painting,
    "extraction": extraction,
    "memory": prediction,
    "dump": dump,
}


def run_tests() -> dict[str, Any]:
    """The tests marked `cuda`: how many passed and failed, and the end of what was printed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    ended = subprocess.run(  # noqa: S603 (this interpreter)
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    lines = ended.stdout.strip().splitlines()
    counts = {
        word: int(count)
        for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1] if lines else "")
    }
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"counts": counts, "failed": failed, "code": ended.returncode, "seconds": time.monotonic() - began}


def card(device: torch.device) -> dict[str, Any] | None:
    """What the device is, and the versions that matter there."""
    if device.type != "cuda":
        return None
    told = torch.cuda.get_device_properties(device)
    return {
        "name": told.name,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory_gib": round(told.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def folder_of(found: Found) -> str:
    """The card in short, as a folder's name: `nvidia-h100-80gb-hbm3`."""
    told = found["card"]
    return re.sub(r"[^a-z0-9]+", "-", told["name"].lower()).strip("-") if told else processor(found["machine"])


def write(out: Path | None, found: Found) -> None:
    """Keep what was found so far."""
    if out is not None:
        folder = out / folder_of(found)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "on_cuda.json", (json.dumps(rounded(found), indent=1) + "\n").encode())


def _share(found: Found, section: str, name: str, flops: float) -> str:
    """How many times longer than its convolutions take at the rate that was measured in that precision."""
    taken = seconds(found["sections"][section]["found"][name])
    precision = next((p for p in ("bfloat16", "float16", "tf32", "float32") if p in name), None)
    rate = found["sections"].get("rates", {}).get("found", {}).get(f"convolution {precision}")
    if taken is None or rate is None or seconds(rate) is None:
        return ""
    each = found["sections"]["rates"]["flops"][f"convolution {precision}"] / seconds(rate)
    return ratio(taken / (flops / each))


def _time_rows(
    found: Found, section: str, peer_of: Callable[[str], str], flops_of: Callable[[str], float]
) -> Iterator[list[str]]:
    everyone = found["sections"][section]["found"]
    for name, told in everyone.items():
        taken = seconds(told)
        peer = seconds(everyone.get(peer_of(name), {}))
        yield [
            name,
            told["error"] if taken is None else f"{taken * 1e3:.3g} ms",
            ratio(peer / taken) if peer and taken else "",
            _share(found, section, name, flops_of(name)),
            "" if told.get("peak_mib") is None else f"{told['peak_mib']:.0f} MiB",
        ]


def _first(name: str) -> str:
    """`LPIPS` of `LPIPS: lpips`, `512 px` of `512 px: plain Gatys loop`."""
    return name.split(":", maxsplit=1)[0]


def _memory_row(name: str, told: Found) -> list[str]:
    if told.get("peak_mib") is None:
        return [name, told.get("error", "not told"), ""]
    return [name, f"{told['peak_mib']:.0f} MiB", f"{told['peak_mib'] / told['predicted_mib']:.2f}"]


def table(found: Found) -> str:
    """All sections that were measured."""
    done = {name: told for name, told in found["sections"].items() if "error" not in told}
    parts: list[str] = []
    timed = ["", "time", "times the peer's speed", "over its convolutions", "memory"]
    if "rates" in done:
        told = done["rates"]
        rows = [
            [name, f"{told['flops'][name] / seconds(each) / 1e12:.3g} TFLOP/s"]
            for name, each in told["found"].items()
            if name != "copy" and seconds(each)
        ]
        rows.append(["copy", f"{told['copied'] / seconds(told['found']['copy']) / 1e9:.4g} GB/s"])
        parts.append(markdown(["rate", ""], rows))
    if "extraction" in done:
        flops = done["extraction"]["flops"]
        parts.append(markdown(timed, _time_rows(found, "extraction", lambda _: "torchvision", lambda _: flops)))
    if "losses" in done:
        flops = done["losses"]["flops"]
        peers = {"LPIPS": "LPIPS: lpips", "DISTS": "", "ESRGAN": "ESRGAN: snippet"}
        parts.append(
            markdown(timed, _time_rows(found, "losses", lambda n: peers[_first(n)], lambda n: flops[_first(n)]))
        )
    if "painting" in done:
        flops = done["painting"]["flops"]
        parts.append(
            markdown(
                timed,
                _time_rows(found, "painting", lambda n: f"{_first(n)}: plain Gatys loop", lambda n: flops[_first(n)]),
            )
        )
    if "memory" in done:
        rows = [_memory_row(name, told) for name, told in done["memory"]["found"].items()]
        parts.append(markdown(["objective", "peak", "over prediction"], rows))
    if "dump" in done:
        rows = [
            [name, f"{statistics.median(told):.0f} pictures/s"]
            for name, told in done["dump"]["pictures_per_second"].items()
            if told
        ]
        parts.append(markdown(["dump", ""], rows))
    if "equality" in done:
        rows = [[name, f"{value:.1e}"] for name, value in done["equality"]["metrics"].items()]
        rows += [
            [f"{name}: painted twice", "equal" if same else "**different**"]
            for name, same in done["equality"]["same_painting_twice"].items()
        ]
        parts.append(markdown(["CPU and device", "difference"], rows))
    parts += [f"{name}: {told['error']}\n" for name, told in found["sections"].items() if "error" in told]
    if found.get("tests"):
        parts.append(f"Tests marked `cuda`: {found['tests']['counts']}\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Test and measure; the exit code is 1 where a test or a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="start no measurement after this (default 8)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the command (default cuda)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write CARD/on_cuda.json there")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked cuda")
    options = parser.parse_args(arguments)
    chosen = options.sections.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"no section '{unknown.pop()}': choose from {', '.join(SECTIONS)}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu tries the command")
    bench = Bench(device, small=device.type != "cuda", deadline=time.monotonic() + 60 * options.minutes)
    found: dict[str, Any] = {
        "settings": {"minutes": options.minutes},
        "machine": machine(),
        "card": card(device),
        "sections": {},
    }
    print(described(found["machine"]), found["card"] or "no card", sep="\n", flush=True)
    if not options.no_tests:
        found["tests"] = run_tests()
        print(found["tests"], flush=True)
    for name in chosen:
        if time.monotonic() > bench.deadline:
            print(f"{name}: no time left", flush=True)
            continue
        began = time.monotonic()
        try:
            found["sections"][name] = SECTIONS[name](bench)
        except Exception as error:  # noqa: BLE001 (the other sections are still worth their time)
            traceback.print_exc()
            found["sections"][name] = told(error)
        found["sections"][name]["took"] = time.monotonic() - began
        write(options.out, found)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(table(found))
    broken = any("error" in told for told in found["sections"].values())
    return int(broken or bool(found.get("tests", {}).get("code", 0) not in (0, 5)))


if __name__ == "__main__":
    sys.exit(main())
