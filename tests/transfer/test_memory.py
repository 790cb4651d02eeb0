"""What a step takes is predicted, and large pictures are computed in blocks that keep to what is allowed."""

import json
import subprocess
import sys

import pytest
import torch

from vggfeat.errors import InputError, RecipeError
from vggfeat.transfer import memory
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.named import recipe
from vggfeat.transfer.tiles import Blocks


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4e9), ("1.5g", 1.5e9), ("800 MB", 8e8), ("123", 123), ("2GiB", 2e9), ("1kb", 1e3)]
)
def test_sizes_are_read(text, size):
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4XB", "0", "\u0661GB", "4 G B"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is not an amount of memory: write 4GB"):
        memory.parse_size(text)


def test_as_much_is_computed_once_as_the_budget_allows():
    default = recipe("default")
    extract = extractor(default, default.layer_weights(), torch.device("cpu"))
    whole = memory.predict(extract, default, 1500, 2000)

    def chosen(budget):
        return memory.choose(extract, default, 1500, 2000, budget)

    assert chosen(None) is None
    assert chosen(whole) is None
    found = [chosen(int(whole * share)) for share in (0.9, 0.6, 0.5, 0.4, 0.3)]
    assert None not in found
    assert found[0] == Blocks(256, 1)
    assert found[-1] == Blocks(256, 4)
    assert chosen(memory.predict(extract, default, 1500, 2000, Blocks(128))) == Blocks(128)
    tiled = [blocks.tiled for blocks in found]
    assert tiled == sorted(tiled)
    taken = [memory.predict(extract, default, 1500, 2000, blocks) / whole for blocks in found]
    assert taken == sorted(taken, reverse=True)
    with pytest.raises(RecipeError, match=r"2000x1500 pixels take 2\.\d GB even in small blocks, 100 MB are"):
        chosen(10**8)


def test_a_limit_is_read_and_none_is_a_share_of_what_is_free():
    cpu = torch.device("cpu")
    assert [memory.budget(limit, cpu) for limit in ("4GB", 123, "123")] == [4 * 10**9, 123, 123]
    assert 0.5 < (memory.budget(None, cpu) or 0) / (memory.available(cpu) or 1) < 2
    with pytest.raises(InputError, match="'-1' is not an amount of memory"):
        memory.budget(-1, cpu)


def test_something_is_free():
    assert (memory.available(torch.device("cpu")) or 0) > 10**8


_MEASURE = """
import json, re, sys, torch
from vggfeat import stylize
from vggfeat.transfer import memory
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.named import recipe

def kilobytes(name):
    return int(re.search(rf"^{name}:\\s*(\\d+)", open("/proc/self/status").read(), re.M)[1])

long, limit = int(sys.argv[1]), sys.argv[2]
content = torch.rand(1, 3, long * 3 // 4, long)
plain = recipe("default", first_size=long, steps=6)
# Weights are prepared by the first picture that is large enough: they are not part of what is predicted.
small = content[..., :400, :400]
first = stylize(small, small, recipe("default", first_size=400, steps=1), precision="float32")
first.result()
before = kilobytes("VmRSS")
run = stylize(content, content, plain, size=long, precision="float32", memory_limit=limit, after=first)
for progress in run:
    pass
extract = extractor(plain, plain.layer_weights(), torch.device("cpu"))
predicted = memory.predict(extract, plain, long * 3 // 4, long, run.blocks[0])
print(json.dumps([(kilobytes("VmHWM") - before) * 1024, predicted, run.blocks[0]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize(("long", "limit"), [(640, "60GB"), (1024, "60GB"), (1024, "900MB")])
def test_prediction_is_near_what_is_measured(long, limit):
    printed = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(long), limit], capture_output=True, text=True, check=True
    ).stdout
    measured, predicted, side = json.loads(printed)
    assert (side is None) == (limit == "60GB")
    assert 0.6 * predicted < measured < 1.25 * predicted
