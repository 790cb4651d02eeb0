import random

import pytest

from vggfeat.pictures.batching import SizeBatches

USUAL = 512 * 512


def grouped(sides, batch_size):
    batches = SizeBatches[int](batch_size)
    found = [batch for place, side in enumerate(sides) for batch in batches.add(side, place)]
    return [*found, *batches.rest()]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_item_is_in_one_batch_of_its_size(batch_size):
    generator = random.Random(0)
    sides = [(generator.choice((64, 512, 900)), generator.choice((48, 700, 2000))) for _ in range(200)]
    found = grouped(sides, batch_size)
    assert sorted(place for _, batch in found for place in batch) == list(range(200))
    for side, batch in found:
        assert all(sides[place] == side for place in batch)
        assert batch == sorted(batch)
        assert len(batch) == 1 or len(batch) * side[0] * side[1] <= batch_size * USUAL
        assert len(batch) <= batch_size


def test_what_waits_is_bounded():
    batches = SizeBatches[int](4)
    waiting = 0
    for place in range(300):
        waiting += (64 + place) * 64
        waiting -= sum(side[0] * side[1] * len(batch) for side, batch in batches.add((64 + place, 64), place))
        assert waiting <= 4 * USUAL
    assert waiting


def test_the_oldest_goes_first():
    sides = [(500, 500), (400, 400), (501, 501)]
    assert grouped(sides, 2) == [((500, 500), [0]), ((400, 400), [1]), ((501, 501), [2])]
    batches = SizeBatches[int](2)
    assert [batches.add(side, place) for place, side in enumerate(sides)] == [[], [], [((500, 500), [0])]]
    assert batches.add((2000, 2000), 3) == [((2000, 2000), [3])]
