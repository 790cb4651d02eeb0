"""What `metrics.available` says of each metric is what the metric does."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import vggfeat
from vggfeat import compare, metrics, read_picture, write_picture
from vggfeat.losses.criterion import Criterion
from vggfeat.pairs.measure import METRICS

AVAILABLE = metrics.available()
OFFLINE = [name for name, metric in AVAILABLE.items() if metric.bundled]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of a patchwork of colours, blurred a little and blurred more, and their batches."""
    sharp = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 2)
    sharp = sharp.repeat_interleave(8, 3)  # DMM needs 121 pixels
    made = sharp, *(F.avg_pool2d(sharp, side, 1, side // 2, count_include_pad=False) for side in (3, 9))
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(3)]
    for path, x in zip(paths, made, strict=True):
        write_picture(path, x)
    return paths, [read_picture(path).rgb for path in paths]


def value(a, b, name):
    [row] = compare(a, b, name, device="cpu").rows
    return row.values[name]


@pytest.mark.parametrize("name", OFFLINE)
def test_ranges_and_directions(name, pictures):
    metric = AVAILABLE[name]
    same, close, further = (value(pictures[0][0], other, name) for other in pictures[0])
    assert same == pytest.approx(metric.equal, abs=1e-6)
    assert all(metric.range[0] <= value <= metric.range[1] for value in (same, close, further))
    assert close > further if metric.higher_is_better else close < further
    assert metric.direction == ("higher" if metric.higher_is_better else "lower")


@pytest.mark.parametrize("name", OFFLINE)
def test_code_makes_the_metric(name, pictures):
    metric = AVAILABLE[name]
    if metric.code.startswith("compare"):
        assert metric.networks == ()
        return
    criterion = eval(metric.code, {word: getattr(vggfeat, word) for word in dir(vggfeat)})  # noqa: S307
    assert isinstance(criterion, Criterion)
    assert (criterion.trunk.name,) == metric.networks
    [sharp, near, _], batches = pictures
    expected = pytest.approx(criterion(*batches[:2]).item(), rel=1e-5)
    assert value(sharp, near, name) == expected
    if metric.accumulated:
        mean = eval(metric.accumulated, {word: getattr(metrics, word) for word in metrics.__all__})  # noqa: S307
        mean.update(*batches[:2])
        assert mean.compute().item() == expected
        assert mean.higher_is_better is metric.higher_is_better


def test_bundled_means_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("a download"))
    assert set(AVAILABLE) - set(OFFLINE) == {"lpips-squeeze"}
    for name in OFFLINE:
        if not AVAILABLE[name].code.startswith("compare"):
            eval(AVAILABLE[name].code, {word: getattr(vggfeat, word) for word in dir(vggfeat)})  # noqa: S307


def test_names_are_those_of_compare():
    assert list(AVAILABLE) == list(METRICS)


def test_the_list_needs_no_torch():
    code = "import sys; from vggfeat import metrics; metrics.available(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_means_need_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "vggfeat.losses.accumulated", raising=False)
    assert metrics.available()
    with pytest.raises(ImportError, match="torchmetrics"):
        metrics.MeanDISTS  # noqa: B018 (the look-up is the test)
    with pytest.raises(AttributeError, match="no attribute 'avaliable'"):
        metrics.avaliable  # noqa: B018 (the look-up is the test)
