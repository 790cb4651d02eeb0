"""Enlarge photographs four times: with L1 alone, and with L1 + perceptual loss + GAN.

    python examples/gan_super_resolution.py --out runs/sr            # four to twelve minutes on two cores
    python examples/gan_super_resolution.py --out runs/sr --resume   # continues an interrupted run

Two generators share an L1 warm-up, then take the same number of steps on the same batches, each with its own loss.
They learn from crops of the bundled photographs. They are evaluated on the middle of each photograph, which no training
crop touches. `--out` gets `comparison.png` and `checkpoint.pt`. The functions to copy are `gan_step` and `train`.
"""

import argparse
import itertools
import time
from importlib.resources import as_file, files
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer
from torchvision.transforms.functional import center_crop

from vggfeat import LPIPS, PerceptualLoss, read_picture, write_picture
from vggfeat.features.device import resolve_precision
from vggfeat.pictures.images import from_pil, to_pil

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
HELD_OUT, CROP, BATCH = 128, 80, 8  # sides of the middle that only the evaluation sees, and of a training crop
WARM_UP = 2 / 3  # share of the steps that are L1 alone
RATE, EVERY = 1e-3, 100  # the learning rate, which falls linearly to 0; steps between checkpoints
CONTENT, PIXEL, ADVERSARIAL = {"conv2_2": 0.05, "conv3_3": 0.05}, 0.3, 0.02  # weights of the terms


def convolution(channels: int, out_channels: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(channels, out_channels, 3, padding=1)


class Residual(nn.Sequential):
    """A residual block (Lim et al. 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return x + super().forward(x)


class Generator(nn.Module):
    """(N, 3, h, w) in [0, 1] to (N, 3, 4h, 4w): the bicubic enlargement plus what the network adds."""

    def __init__(self, channels: int = 40, blocks: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, channels)]
        for _ in range(blocks):
            layers += [Residual(convolution(channels, channels), nn.ReLU(), convolution(channels, channels))]
        for _ in range(2):  # not by pixel shuffle, which leaves a grid after so short a training
            layers += [nn.Upsample(scale_factor=2), convolution(channels, channels), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, convolution(channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The enlargement, near [0, 1] and not clamped to it."""
        return enlarge(x) + self.body(x - 0.5)


class Discriminator(nn.Sequential):
    """(N, 3, H, W) in [0, 1] to (N, 1, H / 8, W / 8): the logit that a patch is real."""

    def __init__(self, channels: int = 32) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, channels, channels * 2, channels * 4)):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(convolution(channels * 4, channels * 4)), nn.LeakyReLU(0.2)]
        super().__init__(*layers, convolution(channels * 4, 1))


def enlarge(x: Tensor) -> Tensor:
    """(N, 3, h, w) to (N, 3, 4h, 4w), bicubic."""
    return F.interpolate(x, scale_factor=4, mode="bicubic")


def shrink(x: Tensor) -> Tensor:
    """(N, 3, 4h, 4w) to (N, 3, h, w) in [0, 1], bicubic and antialiased."""
    return F.interpolate(x, scale_factor=1 / 4, mode="bicubic", antialias=True).clamp(0, 1)


def load_photographs() -> list[Tensor]:
    """The bundled photographs: (3, H, W) each, in [0, 1]."""
    with as_file(files("vggfeat_assets") / "images") as folder:
        return [read_picture(folder / f"{name}.jpg").rgb[0] for name in PHOTOGRAPHS]


def draw_crop(photographs: list[Tensor]) -> Tensor:
    """A random crop beside the held-out middle of a photograph, turned at random: (3, 80, 80)."""

    def below(limit: int) -> int:  # from torch's random numbers, whose state the checkpoint holds
        return int(torch.randint(limit, ()))

    while True:
        photograph = photographs[below(len(photographs))]
        sides = photograph.shape[1:]
        top, left = (below(side - CROP + 1) for side in sides)
        off_centre = (abs(2 * start + CROP - side) for start, side in zip((top, left), sides, strict=True))
        if max(off_centre) > CROP + HELD_OUT:
            crop = photograph[:, top : top + CROP, left : left + CROP].rot90(below(4), (1, 2))
            return crop.flip(2) if below(2) else crop


def draw_batch(photographs: list[Tensor]) -> Tensor:
    """(8, 3, 80, 80) in [0, 1]. Each is the most detailed of three crops: half of the photographs is sky and blur."""
    threes = [[draw_crop(photographs) for _ in range(3)] for _ in range(BATCH)]
    detailed = [max(three, key=lambda crop: crop.diff().abs().mean().item()) for three in threes]
    return torch.stack(detailed).contiguous(memory_format=torch.channels_last)


def l1_step(generator: nn.Module, optimizer: Optimizer, truth: Tensor, *, bfloat16: bool) -> None:
    """One step of the generator towards `truth` (N, 3, H, W) in [0, 1] by L1 alone."""
    with torch.autocast(truth.device.type, torch.bfloat16, enabled=bfloat16):
        prediction = generator(shrink(truth)).float()
    optimizer.zero_grad()
    F.l1_loss(prediction, truth).backward()
    optimizer.step()


def gan_step(
    generator: nn.Module,
    discriminator: nn.Module,
    criterion: PerceptualLoss,
    optimizers: tuple[Optimizer, Optimizer],
    truth: Tensor,
    *,
    bfloat16: bool,
) -> dict[str, float]:
    """One step of both networks towards `truth` (N, 3, H, W) in [0, 1]. Returns the generator's terms.

    The criterion asks for no care: frozen, it keeps its own precision in and out of autocast, and takes the features
    of `truth` without a graph.
    """
    autocast = torch.autocast(truth.device.type, torch.bfloat16, enabled=bfloat16)
    with autocast:
        prediction = generator(shrink(truth)).float()
        adversarial = ADVERSARIAL * F.softplus(-discriminator(prediction).float()).mean()
    loss, terms = criterion.terms(prediction, truth)
    optimizers[0].zero_grad()
    (loss + adversarial).backward()
    optimizers[0].step()

    with autocast:  # one pass for both halves, as DistributedDataParallel and batch norm want it
        fake, real = discriminator(torch.cat([prediction.detach(), truth])).float().chunk(2)
    optimizers[1].zero_grad()  # also drops what the generator's step left in the discriminator
    (F.softplus(fake) + F.softplus(-real)).mean().backward()
    optimizers[1].step()
    return {name: value.item() for name, value in {**terms, "adversarial": adversarial}.items()}


def train(path: Path, steps: int, stop_at: int, *, seed: int, resume: bool) -> dict[str, nn.Module]:
    """Train both generators up to step `stop_at` of `steps`, with checkpoints at `path`. Returns them by name."""
    torch.manual_seed(seed)
    photographs = load_photographs()
    bfloat16 = resolve_precision("auto", photographs[0].device) == torch.bfloat16
    plain, generator, discriminator = Generator(), Generator(), Discriminator()
    # For DDP: wrap the generator and the discriminator in nn.parallel.DistributedDataParallel, not the criterion.
    # check="off": a generator may leave [0, 1] while it learns.
    criterion = PerceptualLoss(CONTENT, distance="l1", pixel=PIXEL, precision="auto", check="off")
    networks = {"plain": plain, "generator": generator, "discriminator": discriminator}
    modules = nn.ModuleDict({**networks, "criterion": criterion}).to(memory_format=torch.channels_last)
    optimizers = [Adam(network.parameters(), betas=(0.9, 0.99)) for network in networks.values()]

    first = 0
    if resume:
        state = torch.load(path, weights_only=True)
        if state["steps"] != steps:
            raise SystemExit(f"{path} is of a run of {state['steps']} steps, not of {steps}")
        modules.load_state_dict(state["modules"])
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        torch.set_rng_state(state["random"])
        first = state["step"]

    began, warm_up, terms = time.perf_counter(), int(WARM_UP * steps), dict[str, float]()
    for step in range(first, stop_at):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        truth = draw_batch(photographs)
        if step == warm_up:
            generator.load_state_dict(plain.state_dict())
        l1_step(plain, optimizers[0], truth, bfloat16=bfloat16)
        if step >= warm_up:
            terms = gan_step(generator, discriminator, criterion, (*optimizers[1:],), truth, bfloat16=bfloat16)
        if (step + 1) % EVERY == 0 or step + 1 == stop_at:
            state = {"step": step + 1, "steps": steps, "modules": modules.state_dict(), "random": torch.get_rng_state()}
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
            temporary = path.with_suffix(".tmp")
            torch.save(state, temporary)
            temporary.replace(path)  # whole or not at all: an interruption leaves the checkpoint before
            told = ", ".join(f"{name} {value:.4f}" for name, value in terms.items()) or "L1 alone"
            print(f"step {step + 1} of {steps}, {time.perf_counter() - began:.0f} s: {told}", flush=True)
    keys = list(modules.state_dict())
    print(f"{path.name}: {len(keys)} tensors, {sum(key.startswith('criterion') for key in keys)} of them VGG's")
    return {"L1": plain, "L1 + perceptual + GAN": generator}


@torch.no_grad()
def evaluate(truth: Tensor, generators: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Print the distance of each enlargement from `truth`, (N, 3, H, W). Returns them and the truth, by name."""
    small = shrink(truth)
    columns = {"bicubic": enlarge(small).clamp(0, 1)}
    columns |= {name: generator(small).clamp(0, 1) for name, generator in generators.items()}
    alex, vgg = LPIPS("alex"), LPIPS("vgg")
    print(f"{len(truth)} held-out crops      LPIPS-alex   LPIPS-vgg       PSNR")
    for name, image in columns.items():
        psnr = -10 * (image - truth).square().mean((1, 2, 3)).log10().mean()
        print(f"{name:21} {alex(image, truth):10.4f} {vgg(image, truth):11.4f} {psnr:7.2f} dB")
    print("The training's features are VGG-16's, as LPIPS-vgg's are: LPIPS-alex is the independent judge.")
    return {**columns, "truth": truth}


def draw_comparison(columns: dict[str, Tensor]) -> Tensor:
    """Batches (N, 3, H, W) in [0, 1], by name, side by side at twice their size: (1, 3, height, width)."""
    rows = torch.cat([torch.cat(list(batch), 1) for batch in columns.values()], 2)
    picture = to_pil(F.interpolate(rows[None], scale_factor=2))
    canvas = Image.new("RGB", (picture.width, picture.height + 32), "white")
    canvas.paste(picture, (0, 32))
    for number, name in enumerate(columns):
        place = (number + 0.5) * picture.width / len(columns), 16
        ImageDraw.Draw(canvas).text(place, name, fill="black", font=ImageFont.load_default(20), anchor="mm")
    return from_pil(canvas).rgb


def main() -> None:
    """Train, measure, and save the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("super_resolution"), help="folder to write to [%(default)s]")
    parser.add_argument("--steps", type=int, default=1800, help="in all, two thirds of them L1 alone [%(default)s]")
    parser.add_argument("--stop-at", type=int, help="stop after this step; --resume goes on")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    last = min(options.stop_at or options.steps, options.steps)
    path = options.out / "checkpoint.pt"
    generators = train(path, options.steps, last, seed=options.seed, resume=options.resume)
    if last == options.steps:
        truth = torch.stack([center_crop(photograph, [HELD_OUT, HELD_OUT]) for photograph in load_photographs()])
        write_picture(options.out / "comparison.png", draw_comparison(evaluate(truth, generators)))
        print(options.out / "comparison.png")


if __name__ == "__main__":
    main()
