"""What a step asks of a GPU: kernels, waits and copies, counted on the `meta` device and held to a table."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from recorder import Recorder

from vggfeat import DISTS, LPIPS, FeatureExtractor, PerceptualLoss
from vggfeat.training.recipe import TrainingRecipe
from vggfeat.training.run import train
from vggfeat.transfer.named import recipe
from vggfeat.transfer.run import stylize

META = torch.device("meta")


def pictures():
    return torch.rand(2, 3, 64, 64, device=META)


def extraction(**options):
    extract, x = FeatureExtractor("vgg16", "relu5_3", device=META, check="off", **options), pictures()
    return lambda: extract(x)


def comparison(make, *arguments, **options):
    """A step of training a generator: the criterion, and its gradient."""
    criterion = make(*arguments, device=META, check="off", **options)
    target = pictures()

    def step():
        prediction = pictures().requires_grad_()
        criterion(prediction, target).mean().backward()

    return step


def painting(objective, *, masked=False):
    picture = torch.zeros(1, 3, 96, 128)
    masks = [torch.ones(1, 1, 96, 128)] if masked else None
    chosen = recipe("default", objective=objective, first_size=4096, steps=20)
    run = iter(stylize(picture, picture, chosen, size=128, masks=masks, device="meta", precision="float32"))
    return lambda: next(run)


def training(folder, augment):
    recipe = TrainingRecipe(network="8,M,16", size=16, batch_size=32, epochs=2, augment=augment)
    progress = iter(train("digits", folder, recipe, device="meta", precision="float32"))
    return lambda: next(progress)


class Budget(NamedTuple):
    """A step, and its ceilings. The copies are those to the device; none comes back."""

    name: str
    make: Callable[..., Callable[[], object]]
    kernels: int
    waits: int = 0
    copies: int = 0


BUDGETS = (
    Budget("extraction in float32", lambda _: extraction(), 33),
    Budget("extraction in bfloat16", lambda _: extraction(precision="bfloat16"), 34),
    Budget("extraction with l2 pools", lambda _: extraction(pooling="l2"), 49),
    Budget("LPIPS", lambda _: comparison(LPIPS), 475),
    Budget("LPIPS alex", lambda _: comparison(LPIPS, "alex"), 420),
    Budget("DISTS", lambda _: comparison(DISTS), 526),
    Budget("PerceptualLoss", lambda _: comparison(PerceptualLoss, ["relu3_3"], ["relu1_2", "relu2_2"]), 133),
    *(
        Budget(f"painting, {name}{', masked' * masked}", lambda _, n=name, m=masked: painting(n, masked=m), most, waits)
        for name, waits, *both in (
            ("gram", 0, 360, 375),
            ("gram+meanstd", 0, 495, 590),
            # A decomposition waits; there is one for each style layer.
            ("covariance", len(recipe("default").style_layers), 570, 645),
            ("swd", 0, 355, 375),
            ("nn", 0, 585, 605),
        )
        for masked, most in enumerate(both)
    ),
    # Its copies are the pictures, their labels and the draws of the augmentation.
    Budget("training, digits", lambda folder: training(folder, "shift"), 170, copies=3),
    Budget("training, photographs", lambda folder: training(folder, "photo"), 224, copies=3),
)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.name)
def test_a_step_keeps_its_budget(budget, tmp_path, monkeypatch):
    step = budget.make(tmp_path)
    step()  # what is built once does not count
    literals = []
    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(owner, name, _noting(getattr(owner, name), literals))
    with Recorder() as recorder:
        step()
    assert 0.8 * budget.kernels < sum(recorder.kernels.values()) <= budget.kernels, recorder.kernels
    assert sum(recorder.waits.values()) <= budget.waits, recorder.waits
    assert sum(recorder.copies.values()) <= budget.copies, recorder.copies
    assert not literals  # numbers of Python become tensors by a copy that waits


def _noting(real, found):
    """A constructor of tensors that notes those it puts on the device."""

    def make(*arguments, **options):
        made = real(*arguments, **options)
        if made.device == META:
            found.append(arguments)
        return made

    return make
