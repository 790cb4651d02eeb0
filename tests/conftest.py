"""What several test modules share."""

import signal

import pytest
import torch


def pytest_sessionstart(session: pytest.Session) -> None:
    """End as after Ctrl-C when asked to end, so that fixtures stop the processes that tests have started."""

    def end(_number: int, _frame: object) -> None:
        session.shouldstop = "terminated"  # for a test that takes the KeyboardInterrupt for its command's
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    # Started in the background, a shell's child ignores SIGINT, and so would the commands that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` are skipped where there is no such device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def images() -> torch.Tensor:
    """Two images of noise, not square: (2, 3, 48, 64) in [0, 1]."""
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param
