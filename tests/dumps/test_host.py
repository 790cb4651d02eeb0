import numpy as np
import pytest
import torch

from vggfeat.dumps.host import copy_to_host, pack, unpack


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_packed_is_unpacked(channels_last):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(1, 3, dtype=torch.float16, generator=generator),
        torch.tensor(7),
        torch.randn(2, 3, 5, 7, generator=generator),
        torch.empty(0, 4),
        torch.arange(6).reshape(2, 3).T,
    ]
    if channels_last:
        tensors[2] = tensors[2].to(memory_format=torch.channels_last)
    expected = [x.numpy() for x in tensors]
    found = unpack(pack(tensors).numpy(), [(x.shape, x.dtype) for x in expected])
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
        assert b.flags.aligned
    assert all(np.array_equal(a, b) for a, b in zip(expected, copy_to_host(tensors)(), strict=True))
    assert all(array.flags.c_contiguous for array in copy_to_host(tensors)())
