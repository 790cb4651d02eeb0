import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from tests.recorder import Recorder
from vggfeat.dumps import host, network
from vggfeat.dumps.network import DumpNetwork, weights_digest
from vggfeat.dumps.recipe import DumpRecipe, parse_reductions
from vggfeat.dumps.stored import store_batch
from vggfeat.networks import weights as weights_table

MOST = 65504.0
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("odd", "clipped", "not_finite"),
    [
        ([], 0, 0),
        ([MOST, -MOST], 0, 0),
        ([MOST + 16, -1e6, 1.0], 2, 0),
        ([INF, -INF, 1e30], 3, 2),
        ([NAN, 0.0], 0, 1),
        ([NAN, INF, 65505.0], 2, 2),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_are_those_of_numpy(dtype, odd, clipped, not_finite):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) * 100
    x.view(-1)[: len(odd)] = torch.tensor(odd)
    found = store_batch({}, {("a", "full"): x}, dtype=dtype, measures=False)()
    limited = np.clip(x.numpy(), -MOST, MOST) if dtype == "float16" else x.numpy()
    assert found.arrays["a", "full"].tobytes() == limited.astype(dtype).tobytes()
    assert found.clipped == {("a", "full"): clipped if dtype == "float16" else 0}
    assert found.not_finite == {("a", "full"): not_finite}
    assert found.measured == {}


def test_zeros_are_counted_beyond_what_float32_counts():
    side = 2**23 + 1
    counts = store_batch({"a": torch.zeros(1, 1, 3, side)}, {}, dtype="float32", measures=True)().measured["a"][1]
    assert counts[0, 0, 0] == 3 * side


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_measurements_are_those_of_numpy(scale):
    x = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)).clamp(min=0) * scale
    values, counts = store_batch({"a": x}, {}, dtype="float16", measures=True)().measured["a"]
    a = x.numpy().astype(np.float64)
    expected = np.stack([a.mean((2, 3)), a.var((2, 3)), a.max((2, 3))], 1)
    assert np.allclose(values, expected, rtol=1e-5)
    assert np.array_equal(counts[:, 0], (a == 0).sum((2, 3)))
    assert np.array_equal(counts[:, 1], (a > MOST).sum((2, 3)))
    assert counts[:, 1].any() == (scale > 1)
    assert np.array_equal(counts[:, 2], np.full((2, 3), 48))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_batch_waits_for_its_device_once(dtype, monkeypatch):
    """On the meta device, where reading any value raises an error, as a GPU would wait for it."""
    reductions = parse_reductions("vgg11", "relu1_1,conv2_1,relu3_1", "full,mean,max,avg7,gram,center,proj16")
    recipe = DumpRecipe(
        network="vgg11", weights=None, reductions=reductions, resize=32, crop=32, dtype=dtype, statistics=True, rdm=4
    )
    copies = []

    def start_copy(packed):
        copies.append(packed)
        return lambda: np.zeros(packed.shape, np.uint8)

    monkeypatch.setattr(host, "start_copy", start_copy)
    digest = weights_digest(recipe, weights_table.load("vgg11", None, seed=0)[0])
    on_meta = DumpNetwork(recipe, digest=digest, device="meta")
    pixels = np.zeros((2, 3, 32, 32), np.float32)
    on_meta.stored(pixels)  # moves the signs of projections to the device
    copies.clear()
    with Recorder() as recorder:
        found = on_meta.stored(pixels)()
    assert len(copies) == 1
    assert copies[0].device.type == "meta"
    assert not recorder.waits
    assert "to the host" not in recorder.copies
    assert recorder.kernels["amax"] >= 3
    assert found.arrays["relu1_1", "full"].shape == (2, 64, 32, 32)
    assert {array.dtype for array in found.arrays.values()} == {np.dtype(dtype)}
    assert set(found.measured) == {"relu1_1", "conv2_1", "relu3_1"}


def test_pictures_reach_cuda_from_pinned_memory(monkeypatch):
    """From other memory, a copy waits for all that the GPU still has to do."""
    recipe = DumpRecipe(network="vgg11", weights=None, reductions=parse_reductions("vgg11", "relu1_1", "full"))
    digest = weights_digest(recipe, weights_table.load("vgg11", None, seed=0)[0])
    pinned = []
    monkeypatch.setattr(network, "choose_device", torch.device)
    monkeypatch.setattr(network, "FeatureExtractor", lambda *_, **__: lambda x: {"relu1_1": x})
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(tuple(x.shape)) or x)
    on_cuda = DumpNetwork(recipe, digest=digest, device="cuda")
    with FakeTensorMode():
        found = on_cuda(np.zeros((2, 3, 32, 32), np.float32))
    assert found.outputs["relu1_1", "full"].device.type == "cuda"
    assert pinned == [(2, 3, 32, 32)]
