"""The rule that chooses a convolution's algorithm, and the one that chooses bfloat16."""

import pytest
import torch

from vggfeat.features import algorithms
from vggfeat.networks import arch

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "size", "expected"),
    [
        ("AVX2", torch.float32, (128, 128), (112, 112), "winograd"),
        ("AVX512", torch.float32, (512, 512), (28, 28), "winograd"),
        ("AVX512", torch.float32, (512, 512), (20, 20), "torch"),  # enough work, but too few tiles
        ("AVX512", torch.float32, (128, 128), (32, 32), "torch"),  # too little work
        ("AVX2", torch.float32, (128, 64), (112, 112), "winograd"),
        ("AVX512", torch.float32, (128, 64), (112, 112), "torch"),  # too few weights
        ("AVX2", torch.float32, (64, 64), (224, 224), "torch"),
        ("AVX2", torch.bfloat16, (128, 128), (112, 112), "torch"),
        ("AVX2", torch.float64, (128, 128), (112, 112), "torch"),
        ("DEFAULT", torch.float32, (128, 128), (112, 112), "torch"),
        ("SVE256", torch.float32, (128, 128), (112, 112), "torch"),
    ],
)
def test_choose(capability, dtype, channels, size, expected):
    assert algorithms.choose(capability, dtype, channels, size) == expected


def test_by_layer_follows_the_size_through_the_network(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    chosen = algorithms.by_layer(arch.layers("vgg16"), 224, 224, dtype=torch.float32, device=CPU)
    assert list(chosen)[:3] == ["conv1_1", "conv1_2", "conv2_1"]
    fast = [name for name, algorithm in chosen.items() if algorithm == "winograd"]
    assert fast == ["conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3"]
    for options in ({"dtype": torch.bfloat16, "device": CPU}, {"dtype": torch.float32, "device": torch.device("cuda")}):
        assert set(algorithms.by_layer(arch.layers("vgg16"), 224, 224, **options).values()) == {"torch"}


def test_other_convolutions_run_as_torch_has_them():
    chosen = algorithms.by_layer(arch.layers("C"), 512, 512, dtype=torch.float32, device=CPU)
    assert chosen["conv3_3"] == "torch"  # 1x1


@pytest.mark.parametrize(
    ("capability", "able", "expected"),
    [
        ("AVX512", {"avx512_bf16": True}, True),
        ("AVX512", {"amx_bf16": True}, True),
        ("AVX512", {"avx512_f": True}, False),
        ("AVX2", {"avx512_bf16": True}, False),  # torch is told to leave AVX-512 alone
        ("DEFAULT", {"bf16": True}, False),
    ],
)
def test_bfloat16_is_taken_where_it_was_measured_to_be_faster(monkeypatch, capability, able, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert algorithms.bfloat16_is_faster() is expected
