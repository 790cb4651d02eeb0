"""Targets computed window by window are those of the whole style, in less memory."""

from dataclasses import replace

import pytest
import torch
from meter import Meter

from vggfeat.errors import RecipeError
from vggfeat.pictures import images
from vggfeat.transfer import checkpoint
from vggfeat.transfer.blocks import Whole
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.named import recipe
from vggfeat.transfer.objective import OBJECTIVES, style_losses
from vggfeat.transfer.run import stylize
from vggfeat.transfer.windows import Plan, Windows

CPU = torch.device("cpu")
STYLE = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("margin", [0, 16])
@pytest.mark.parametrize("size", [(83, 70), (33, 27)], ids=["enlarged", "shrunk"])
def test_windows_give_the_targets_of_the_whole(objective, margin, size):
    layers = {"relu1_1": 1, "relu2_1": 1, "relu3_1": 1}
    chosen = recipe("default", network="vgg16", style_layers=layers, objective=objective)
    extract = extractor(chosen, layers, CPU)
    losses = style_losses(chosen)
    expected = Whole(extract, margin).targets(images.resize(STYLE, *size), losses)
    found = Windows(extract, margin).windowed(STYLE, Plan(*size, 32), losses)
    for target, wanted in zip(found, expected, strict=True):
        assert target.keys() == wanted.keys()
        assert all((target[name] - wanted[name]).norm() <= 2e-3 * wanted[name].norm() for name in target)


def test_areas_count_in_windows():
    chosen = recipe("default", network="vgg16", style_layers={"relu1_1": 1})
    extract = extractor(chosen, ["relu1_1"], CPU)
    losses = style_losses(chosen)
    half = torch.zeros(1, 1, 40, 30)
    half[..., :15] = 1
    expected = Whole(extract, 0).targets(STYLE, losses, {"relu1_1": half})
    found = Windows(extract, 0).windowed(STYLE, Plan(40, 30, 16), losses, half)
    assert torch.allclose(found[0]["relu1_1"], expected[0]["relu1_1"], rtol=1e-4)


def peak(chosen, limit):
    """The bytes that a run takes on top of its pictures and weights."""
    content, style = torch.empty(1, 3, 96, 128, device="meta"), torch.empty(1, 3, 300, 400, device="meta")
    with Meter() as meter:
        run = stylize(content, style, chosen, memory_limit=limit, device="meta", precision="float32")
        before = meter.now
        next(iter(run))
    return meter.peak - before


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["gram", "gram+meanstd", "covariance"])
def test_a_style_of_any_scale_keeps_to_the_limit(objective):
    chosen = recipe("default", objective=objective, first_size=128, size=128, style_scale=20.0)
    assert peak(chosen, "60MB") < 1.1 * 60e6
    assert peak(chosen, "900GB") > 5 * 60e6


@pytest.mark.parametrize("objective", ["swd", "nn"])
def test_a_style_that_cannot_fit_is_refused_before_anything_runs(objective):
    chosen = recipe("default", objective=objective, first_size=128, size=128, style_scale=20.0)
    with pytest.raises(RecipeError, match=r"take .* 60 MB are allowed: choose a smaller"):
        peak(chosen, "60MB")


def test_a_resumed_run_uses_the_same_windows(tmp_path):
    small = recipe("default", network="vgg16", style_layers={"relu2_1": 1}, content_layers={"relu1_1": 1}, steps=2)
    content = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    chosen = replace(small, style_scale=16.0, first_size=32)
    run = stylize(content, STYLE, chosen, memory_limit="12MB", precision="float32")
    next(iter(run))
    path = tmp_path / "run.ckpt"
    run.save(path)
    assert len(checkpoint.load_facts(path)["windows"]) == 1
    resumed = stylize(content, STYLE, chosen, memory_limit="9GB", resume=path, precision="float32")
    assert torch.equal(resumed.result(), run.result())
