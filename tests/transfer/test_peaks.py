"""The memory of a step, measured without a GPU, is what was predicted."""

from dataclasses import replace

import pytest
import torch
from meter import Meter

from vggfeat.transfer import memory
from vggfeat.transfer.blocks import Blockwise
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.named import recipe
from vggfeat.transfer.objective import OBJECTIVES
from vggfeat.transfer.run import stylize
from vggfeat.transfer.tiles import Blocks

HEIGHT, WIDTH = 480, 640


def peak(chosen, limit, precision, steps=2):
    """The bytes that a run takes on top of its pictures and weights, and the blocks that it used."""
    content, style = (torch.empty(1, 3, HEIGHT, WIDTH, device="meta") for _ in range(2))
    with Meter() as meter:
        run = stylize(content, style, chosen, size=WIDTH, memory_limit=limit, device="meta", precision=precision)
        before = meter.now
        for _, _ in zip(range(steps), run, strict=False):
            pass
    return meter.peak - before, run.blocks[0]


def predicted(chosen, precision, blocks):
    extract = extractor(chosen, chosen.layer_weights(), torch.device("meta"), precision)
    return memory.predict(extract, chosen, HEIGHT, WIDTH, blocks)


@pytest.mark.parametrize(
    "objective", [pytest.param(name, marks=pytest.mark.slow if name == "nn" else ()) for name in OBJECTIVES]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("divided", [False, True], ids=["whole", "blocks"])
def test_the_peak_of_a_step_is_within_a_tenth_of_the_prediction(objective, precision, divided):
    chosen = recipe("default", objective=objective, first_size=4096, optimiser="adam")
    limit = int(1.1 * predicted(chosen, precision, Blocks(128))) if divided else "900GB"
    taken, blocks = peak(chosen, limit, precision)
    assert (blocks is not None) == divided
    assert taken == pytest.approx(predicted(chosen, precision, blocks), rel=0.1)


def test_the_history_of_the_optimiser_is_predicted():
    chosen = recipe("default", first_size=4096, steps=20)
    taken, _ = peak(chosen, "900GB", "float32", steps=15)
    assert taken == pytest.approx(predicted(chosen, "float32", None), rel=0.1)


def test_memory_that_the_allocator_keeps_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 80)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 30)
    assert memory.available(torch.device("cuda")) == 36


SMALL = recipe("default", network="vgg16", content_layers={"relu2_1": 1}, style_layers={"relu1_1": 1}, steps=1)


def test_a_style_much_larger_than_the_picture_is_evaluated_in_blocks(monkeypatch):
    sizes, plain = [], Blockwise.targets
    monkeypatch.setattr(Blockwise, "targets", lambda self, x, *rest: sizes.append(x.shape) or plain(self, x, *rest))
    picture = torch.empty(1, 3, 64, 64, device="meta")
    for scale in (1.0, 2.0):
        stylize(picture, picture, replace(SMALL, style_scale=scale), device="meta").result()
    assert sizes == [(1, 3, 128, 128)]


def test_targets_that_the_next_picture_cannot_use_are_freed():
    style = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    runs = [stylize(torch.rand(1, 3, 32, 32), style, SMALL)]
    for side in (32, 48):
        runs[-1].result()
        runs.append(stylize(torch.rand(1, 3, side, side), style, SMALL, after=runs[-1]))
    kept = [run.reusable(SMALL, torch.device("cpu"), "auto") for run in runs]
    assert [len(each[1]) for each in kept if each] == [1, 1, 0]
