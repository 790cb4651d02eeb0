"""What a step asks of its device, counted on the `meta` device: it never waits, and gives the same bits each time."""

import pytest
import torch
from recorder import Recorder

from vggfeat.transfer.beyond import texture
from vggfeat.transfer.dreams import dream
from vggfeat.transfer.named import recipe
from vggfeat.transfer.objective import OBJECTIVES
from vggfeat.transfer.run import stylize
from vggfeat.transfer.visualize import visualize

CONTENT, STYLE = torch.zeros(1, 3, 96, 128), torch.zeros(1, 3, 96, 80)
MASK = torch.ones(1, 1, 96, 128)
HALF = torch.cat([MASK[..., :64], 0 * MASK[..., :64]], dim=3)
META = {"device": "meta", "precision": "float32"}
LAYERS = len(recipe("default").style_layers)


def painting(objective="gram", *, masks=None, size=128, memory_limit=None, **changes):
    chosen = recipe("default", objective=objective, first_size=4096, steps=20, **changes)
    return stylize(CONTENT, STYLE, chosen, size=size, masks=masks, memory_limit=memory_limit, **META)


def record(run, *, refuse=False):
    """One step of `run`, after two that prepare it and fill the optimiser's history."""
    steps = iter(run)
    for _ in range(2):
        next(steps)
    with Recorder(refuse=refuse) as recorder:
        next(steps)
    return recorder


RUNS = {
    **{objective: lambda objective=objective: painting(objective) for objective in OBJECTIVES},
    **{f"{name} masked": lambda name=name: painting(name, masks=[MASK]) for name in OBJECTIVES},
    **{f"{pooling} pooling": lambda pooling=pooling: painting(pooling=pooling) for pooling in ("avg", "l2")},
    "total variation": lambda: painting(tv_weight=1.0),
    "wrapped": lambda: painting(edges="wrap"),
    "adam": lambda: painting(optimiser="adam"),
    "kept": lambda: stylize(CONTENT, STYLE, recipe("default", first_size=4096, steps=20), keep=HALF, **META),
    "texture": lambda: texture(STYLE, recipe("texture", steps=20), size=(96, 64), seamless=True, **META),
    "inversion": lambda: painting(content_layers={"relu3_1": 1.0}, style_layers={}, tv_weight=1.0),
    "dream": lambda: dream(CONTENT, octaves=1, steps=20, **META),
    "visualisation": lambda: visualize("relu3_1", channel=3, size=64, steps=20, count=2, **META),
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_the_same_seed_gives_the_same_picture_on_a_gpu(make):
    record(make(), refuse=True)


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_a_step_waits_for_no_number_and_copies_nothing(make, request):
    found = record(make())
    decompositions = LAYERS if "covariance" in request.node.callspec.id else 0
    assert sum(found.waits.values()) == found.waits["_linalg_eigh"] == decompositions
    assert not found.copies
