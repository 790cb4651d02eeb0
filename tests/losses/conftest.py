import pytest
import torch


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return {
        "relu1_1": torch.rand(2, 4, 8, 8, generator=generator),
        "relu2_1": torch.rand(2, 6, 4, 4, generator=generator),
        "image": torch.rand(2, 3, 8, 8, generator=generator),
    }


@pytest.fixture
def others(features):
    return {name: x.flip(0) for name, x in features.items()}
