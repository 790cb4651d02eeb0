import pytest

from vggfeat.errors import RecipeError
from vggfeat.transfer.named import recipe
from vggfeat.transfer.stages import plan

DOUBLING = recipe("default", first_size=256, growth=2.0, steps=80, step_decay=0.5)


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((384, 512), [(192, 256), (384, 512)]),
        ((1024, 512), [(256, 128), (512, 256), (1024, 512)]),
        ((200, 256), [(200, 256)]),
        ((100, 150), [(100, 150)]),
        ((300, 300), [(300, 300)]),
        ((400, 400), [(256, 256), (400, 400)]),
    ],
)
def test_sizes_grow_evenly_from_the_first_to_the_last(size, sides):
    stages = plan(DOUBLING, *size)
    assert [(stage.height, stage.width) for stage in stages] == sides


def test_steps_decay_and_shares_add_up():
    stages = plan(DOUBLING, 2048, 2048)
    assert [stage.steps for stage in stages] == [80, 40, 20, 10]
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert stages[1].share == pytest.approx(2 * stages[0].share)


def test_a_narrow_picture_keeps_the_pixels_that_the_network_needs():
    assert all(min(stage.height, stage.width) >= 16 for stage in plan(DOUBLING, 16, 1024))


def test_too_small_a_picture_is_refused():
    with pytest.raises(RecipeError, match="300x15 pixels are too few for the recipe's layers: they need 16 a side"):
        plan(DOUBLING, 15, 300)
