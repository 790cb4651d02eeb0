import itertools
import time

import pytest
import torch
from torch.nn.functional import mse_loss

from vggfeat import stylize
from vggfeat.errors import ImageError, InputError, RecipeError, VggfeatError
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.gram import GramLoss
from vggfeat.pictures import images
from vggfeat.transfer.blocks import Whole
from vggfeat.transfer.named import recipe
from vggfeat.transfer.objective import OBJECTIVES, WeightedLoss
from vggfeat.transfer.tiles import Blocks

# Shallow layers: what these tests show does not depend on depth, and a pass of three convolutions is short.
SHALLOW = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0}}
SMALL = SHALLOW | {"first_size": 32, "steps": 4}


@pytest.fixture
def content():
    """A dark square on a light ground, (1, 3, 48, 64)."""
    picture = torch.full((1, 3, 48, 64), 0.8)
    picture[..., 12:36, 20:44] = torch.tensor([0.1, 0.2, 0.5]).view(1, 3, 1, 1)
    return picture


@pytest.fixture
def style():
    """Slanted red and yellow stripes, (1, 3, 40, 40)."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    stripes = ((x + 2 * y) % 12 < 6).float()
    return torch.stack([0.9 - 0.1 * stripes, 0.2 + 0.6 * stripes, 0.1 * torch.ones_like(stripes)])[None]


def gatys_loss(image, content, style):
    """The Gatys notebook's objective as REFERENCE defines it, without the project's losses."""
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    extract = FeatureExtractor("vgg19", [*layers, "relu4_2"], weights="oxford")
    height, width = image.shape[2:]
    scale = (height * width / (style.shape[2] * style.shape[3])) ** 0.5
    style = images.resize(style, round(style.shape[2] * scale), round(style.shape[3] * scale))
    ours, theirs, painted = extract(image), extract(images.resize(content, height, width)), extract(style)
    total = mse_loss(ours["relu4_2"], theirs["relu4_2"])
    for name in layers:
        channels = ours[name].shape[1]
        grams = [x.flatten(2) @ x.flatten(2).mT / (x.shape[2] * x.shape[3]) for x in (ours[name], painted[name])]
        total = total + 1e3 / channels**2 * mse_loss(*grams)
    return total.item()


def test_progress_tells_stages_steps_and_losses(content, style):
    run = stylize(content, style, recipe("gatys", **SMALL), size=64, precision="float32")
    steps = list(run)
    assert [(p.stage, p.step) for p in steps] == [(1, n) for n in range(1, 5)] + [(2, n) for n in range(1, 5)]
    assert [tuple(p.image.shape) for p in steps] == [(1, 3, 24, 32)] * 4 + [(1, 3, 48, 64)] * 4
    assert {(p.stages, p.steps) for p in steps} == {(2, 4)}
    assert steps[-1].done == 1
    assert all(earlier.seconds <= later.seconds for earlier, later in itertools.pairwise(steps))
    assert set(steps[-1].losses) == {"content", "style", "total"}
    assert torch.equal(run.image, steps[-1].image)


def test_the_reported_loss_is_the_gatys_notebooks(content, style):
    run = stylize(content, style, recipe("gatys", first_size=64, steps=1), size=64, precision="float32")
    progress = next(iter(run))
    assert progress.losses["total"] == pytest.approx(gatys_loss(progress.image, content, style), rel=1e-3)


def test_the_loss_falls_and_the_image_stays_in_range(content, style):
    run = stylize(content, style, recipe("gatys", first_size=32, steps=25), size=64, precision="float32")
    image = run.result()
    assert gatys_loss(image, content, style) < 0.05 * gatys_loss(content, content, style)
    assert 0 <= image.min() < image.max() <= 1


def test_what_is_saved_is_what_was_optimised(content, style, tmp_path):
    run = stylize(content, style, recipe("gatys", first_size=32, steps=25), size=64, precision="float32")
    image = run.result()
    images.write_picture(tmp_path / "out.png", image)
    saved = images.read_picture(tmp_path / "out.png").rgb
    assert gatys_loss(saved, content, style) < 1.1 * gatys_loss(image, content, style)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_the_same_seed_gives_the_same_picture(optimiser, content, style):
    def paint(seed):
        small = recipe("default", **SMALL, start="noise", optimiser=optimiser, seed=seed)
        return stylize(content, style, small, size=64).result()

    assert torch.equal(paint(1), paint(1))
    assert not torch.equal(paint(1), paint(2))


def test_a_margin_hides_the_border(style):
    """A picture of one colour looks the same everywhere to a network that does not feel the zeros around it."""
    plain = torch.full((1, 3, 64, 64), 0.3)
    for margin, even in ((0, False), (16, True)):
        run = stylize(plain, style, recipe("default", margin=margin), size=64, precision="float32")
        features = run.evaluators[0].features(plain)
        assert features["relu1_1"].shape[2:] == (64, 64)
        assert features["relu4_1"].shape[2:] == (8, 8)
        spread = features["relu2_1"].flatten(2).std(2).max()
        assert (spread < 1e-3) == even


def test_starts_from_a_picture(content, style, tmp_path):
    images.write_picture(tmp_path / "start.png", torch.zeros(1, 3, 20, 20))
    run = stylize(content, style, recipe("default", **SMALL, start=str(tmp_path / "start.png")), size=64)
    assert run.image.abs().max() == 0


def test_seconds_end_a_run_and_are_shared_out(content, style):
    run = stylize(content, style, recipe("default", **SMALL), size=64, seconds=2.0)
    began = time.monotonic()
    last = {p.stage: p for p in run}
    assert time.monotonic() - began >= 2.0
    assert last[1].seconds >= 2.0 * run.stages[0].share
    assert last[1].seconds < last[2].seconds


@pytest.mark.parametrize("seconds", [1e-9, 0.3])
def test_however_short_the_time_every_stage_takes_a_step(seconds, content, style):
    steps = list(stylize(content, style, recipe("default", **SMALL), size=64, seconds=seconds))
    assert {p.stage for p in steps} == {1, 2}
    assert steps[-1].image.shape == (1, 3, 48, 64)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_impossible_times_are_refused(seconds, content, style):
    with pytest.raises(RecipeError, match="it must be above 0 and finite"):
        stylize(content, style, size=64, seconds=seconds)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_modes_have_no_say(mode, content, style):
    def paint():
        return stylize(content, style, recipe("default", **SMALL), size=32, precision="float32").result()

    expected = paint()
    with mode():
        assert torch.equal(paint(), expected)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_reported_losses_are_those_of_the_image(optimiser, content, style):
    small = recipe("gatys", first_size=64, steps=6, optimiser=optimiser)
    for progress in list(stylize(content, style, small, size=64, precision="float32"))[::2]:
        assert progress.losses["total"] == pytest.approx(gatys_loss(progress.image, content, style), rel=1e-3)


def test_a_loss_that_overflows_is_an_error(content, style, monkeypatch):
    monkeypatch.setattr(
        "vggfeat.transfer.run.style_losses", lambda _: [WeightedLoss("style", float("inf"), GramLoss({"relu1_1": 1.0}))]
    )
    run = stylize(content, style, recipe("default", **SMALL), size=32)
    with pytest.raises(RecipeError, match="the loss is not finite"):
        run.result()


def test_a_run_that_shrinks_its_blocks_says_so(content, style, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Whole, "evaluate", fail)
    shallow = {"content_layers": {"relu1_1": 1}, "style_layers": {"relu1_1": 1}}
    small = recipe("default", first_size=128, steps=2, **shallow)
    run = stylize(images.resize(content, 96, 128), style, small, size=128)
    assert [progress.note for progress in run] == ["out of memory: continuing in blocks of 64 pixels", None]
    assert run.blocks == (Blocks(64),)


def test_a_small_limit_computes_in_blocks(content, style):
    content = images.resize(content, 384, 512)
    run = stylize(content, style, recipe("default", steps=1), size=512, memory_limit="200MB")
    assert run.blocks[-1] is not None
    next(iter(run))
    with pytest.raises(RecipeError, match=r"even in small blocks, 1 MB are allowed"):
        stylize(content, style, size=512, memory_limit="1MB")
    with pytest.raises(InputError, match="'lots' is not an amount of memory: write 4GB"):
        stylize(content, style, size=512, memory_limit="lots")


def test_a_mask_paints_inside_and_keep_keeps(content, style):
    left = torch.zeros(1, 1, 48, 64)
    left[..., :32] = 1
    strong = recipe("default", **SMALL | {"content_weight": 0.0, "start": "content", "margin": 0})
    kept = stylize(content, style, strong, size=64, keep=left).result()
    assert torch.allclose(kept[..., :30], content[..., :30], atol=1e-4)
    assert (kept[..., 34:] - content[..., 34:]).abs().mean() > 0.02
    masked = stylize(content, style, strong, size=64, masks=[left], precision="float32").result()
    change = (masked - content).abs().mean((0, 1, 2))
    assert change[:28].mean() > 5 * change[50:].mean()


def test_styles_mix_by_weight(content, style):
    other = style.flip(1)

    def paint(**options):
        return stylize(content, [style, other], chosen, size=48, **options).result()

    chosen = recipe("default", **SHALLOW, first_size=48, steps=12)
    alone = stylize(content, style, chosen, size=48).result()
    assert torch.allclose(paint(weights=[1, 0]), alone, atol=2e-3)
    assert (paint() - alone).abs().mean() > 1e-2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_falls(objective, content, style):
    small = recipe("default", **SHALLOW, first_size=64, steps=8, objective=objective, content_weight=0.0)
    totals = [progress.losses["total"] for progress in stylize(content, style, small, size=64, precision="float32")]
    assert totals[-1] < totals[0]


def test_a_plateau_ends_a_stage(content, style):
    stopped = recipe("default", **SHALLOW, first_size=64, steps=60, until_plateau=0.5)
    steps = len(list(stylize(content, style, stopped, size=64)))
    assert 11 <= steps < 60


def test_out_of_memory_says_at_which_size(content, style, monkeypatch):
    def fail(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    run = stylize(content, style, recipe("default", **SMALL), size=64)
    monkeypatch.setattr("vggfeat.transfer.optimise.BoundedLBFGS", fail)
    with pytest.raises(VggfeatError, match="out of memory at 32x24 pixels: choose a smaller size"):
        run.result()


@pytest.mark.parametrize("size", [(1, 500), (1, 1)])
def test_a_thin_or_tiny_style_is_widened(size, content, monkeypatch):
    """Its features are computed at no less than the network's smallest size."""
    sizes, plain = [], Whole.targets

    def targets(method, image, losses, masks=None):
        sizes.append(tuple(image.shape[2:]))
        return plain(method, image, losses, masks)

    monkeypatch.setattr(Whole, "targets", targets)
    style = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    run = stylize(content, style, recipe("default", first_size=32, steps=1, style_scale=0.05), size=64)
    assert run.result().isfinite().all()
    least = FeatureExtractor("vgg19", "relu5_1").minimum_size
    assert sizes[0] == (24, 32)  # the content of the first stage
    assert all(min(found) >= least for found in sizes)
    assert least in sizes[1]


def test_what_a_file_hides_is_not_painted(content, tmp_path):
    """A style that is transparent but for a blue patch is a blue style, whatever lies under."""
    rgb = torch.zeros(1, 3, 32, 32)
    rgb[:, 0] = 1
    alpha = torch.zeros(1, 1, 32, 32)
    rgb[..., 8:24, 8:24] = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    alpha[..., 8:24, 8:24] = 1
    images.write_picture(tmp_path / "style.png", rgb, alpha=alpha)
    image = stylize(content, tmp_path / "style.png", recipe("default", **SMALL), size=64).result()
    assert image[:, 2].mean() > image[:, 0].mean()


def test_only_what_is_weighed_is_computed(content, style):
    run = stylize(content, style, recipe("default", **SMALL | {"content_layers": {}}), size=64)
    assert set(next(iter(run)).losses) == {"style", "total"}


def test_never_enlarges(content, style):
    assert stylize(content, style, size=512).stages[-1].width == 64


def test_accepts_files_and_unbatched_tensors(content, style, tmp_path):
    images.write_picture(tmp_path / "style.png", style)
    run = stylize(content[0], tmp_path / "style.png", recipe("default", **SMALL), size=32)
    assert run.result().shape == (1, 3, 24, 32)


def test_leaves_the_global_generator_alone(content, style):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    stylize(content, style, recipe("default", **SMALL, start="noise"), size=32).result()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(2, 3, 32, 32), r"content is torch.float32 \(2, 3, 32, 32\): pass one float RGB image"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "content is torch.uint8"),
        (torch.rand(1, 3, 32, 32) * 255, "is it input_range='byte'"),
    ],
)
def test_bad_tensors(bad, message, style):
    with pytest.raises(InputError, match=message):
        stylize(bad, style)


def test_missing_file(style):
    with pytest.raises(ImageError, match="no such file"):
        stylize("absent.jpg", style)


def test_devices_are_named_or_refused():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        choose_device("gpu")
    for absent in ("cuda:99", "xpu"):
        with pytest.raises(InputError, match=f"there is no device '{absent}' here"):
            choose_device(absent)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_no_device_is_assumed(optimiser):
    """On the meta device a loss that is read, or a tensor left on the CPU, is an error."""
    content, style = (torch.empty(1, 3, 40, side, device="meta") for side in (48, 32))
    small = recipe("default", **SMALL, optimiser=optimiser, tv_weight=1.0, pooling="l2")
    assert stylize(content, style, small, device="meta").result().device.type == "meta"


@pytest.mark.cuda
def test_cuda(content, style):
    image = stylize(content, style, recipe("gatys", first_size=32, steps=25), size=64, device="cuda").result()
    assert gatys_loss(image.cpu(), content, style) < 0.1 * gatys_loss(content, content, style)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler looks at it
def test_a_compiled_network_paints_the_same(style):
    """On CUDA, which it is meant for, and on a CPU, where torch needs a compiler of C++."""
    content = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))  # no ties for max-pooling to break
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = recipe("default", first_size=64, steps=1)
    plain, compiled = (
        stylize(content, style, chosen, size=64, device=device, precision="float32", compiled=flag)
        for flag in (False, True)
    )
    theirs = next(iter(plain)).losses
    assert next(iter(compiled)).losses == pytest.approx(theirs, rel=1e-3)
    assert (plain.image - compiled.image).abs().mean() < 1e-4
