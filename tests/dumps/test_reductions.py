import numpy as np
import pytest
import torch

from vggfeat.dumps.recipe import projection_size
from vggfeat.dumps.reductions import output_shape, project, reduce

X = torch.randn(3, 5, 9, 11, generator=torch.Generator().manual_seed(0))


def part(index, side):
    return slice(index * side // 7, -(-(index + 1) * side // 7))


ORACLES = {
    "full": lambda x: x,
    "mean": lambda x: x.mean((2, 3)),
    "max": lambda x: x.max(3).max(2),
    "avg7": lambda x: np.stack(
        [
            [
                x[:, :, i * 9 // 7 : -(-(i + 1) * 9 // 7), j * 11 // 7 : -(-(j + 1) * 11 // 7)].mean((2, 3))
                for j in range(7)
            ]
            for i in range(7)
        ]
    ).transpose(2, 3, 0, 1),
    "gram": lambda x: np.einsum("nchw,ndhw->ncd", x, x) / 99,
    "center": lambda x: x[:, :, 4, 5],
}


@pytest.mark.parametrize("name", ORACLES)
def test_reductions(name):
    found = reduce(X.to(memory_format=torch.channels_last), name)
    assert np.allclose(found, ORACLES[name](X.numpy()), atol=1e-5)
    assert found.shape[1:] == output_shape(name, X.shape[1:])
    half = reduce(X.bfloat16(), name)
    assert half.dtype == torch.float32
    assert np.allclose(half, ORACLES[name](X.bfloat16().float().numpy()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_all_features_leave_the_layout_of_the_network(dtype):
    found = reduce(X.to(dtype).to(memory_format=torch.channels_last), "full")
    assert found.is_contiguous()
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(found, X.to(dtype).to(found.dtype))


def test_a_projection_keeps_inner_products_on_average():
    rows = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    rows[1] += rows[0]
    true = (rows[0] * rows[1]).sum()
    found = torch.stack([project(rows, 16, layer="a", seed=seed).prod(0).sum() for seed in range(2000)])
    error = found.std() / 2000**0.5
    assert abs(found.mean() - true) < 4 * error
    # at most the variance of a Gaussian projection: (|x|² |y|² + <x, y>²) / K
    norms = rows.square().sum((1, 2, 3)).prod()
    assert found.var() < 1.1 * (norms + true**2) / 16


def test_a_projection_is_linear_and_its_seed_chooses_it():
    a, b = X[:1], X[1:2]
    assert torch.allclose(
        project(a + b, 7, layer="a", seed=0), sum(project(x, 7, layer="a", seed=0) for x in (a, b)), atol=1e-5
    )
    assert torch.equal(reduce(X, "proj7", layer="a", seed=3), project(X, 7, layer="a", seed=3))
    for other in ({"layer": "b", "seed": 0}, {"layer": "a", "seed": 1}):
        assert not torch.allclose(project(a, 7, layer="a", seed=0), project(a, 7, **other))
    assert output_shape("proj7", (5, 9, 11)) == (7,)
    assert project(X, 1000, layer="a", seed=0).shape == (3, 1000)


def test_projection_sizes():
    assert projection_size("proj256") == 256
    assert [projection_size(word) for word in ("proj", "proj0", "projK", "proj-1", "mean")] == [None] * 5
