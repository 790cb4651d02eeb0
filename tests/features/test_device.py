"""Precisions, torch's settings for them, and running out of memory; GPUs are described by name only."""

import os
import subprocess
import sys
from threading import Barrier, Thread

import pytest
import torch

from vggfeat.errors import InputError
from vggfeat.features import device as devices
from vggfeat.features.device import choose_precision, describe, is_out_of_memory, resolve_precision, settings

CUDA = torch.device("cuda")


def current():
    """Torch's settings: cuDNN's, of its convolutions, of products, and the processor's."""
    backends = torch.backends
    return (
        backends.fp32_precision,
        backends.cudnn.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.enabled,
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
    )


@pytest.fixture(autouse=True)
def _restored():
    before = current()
    yield
    backends = torch.backends
    backends.fp32_precision, backends.cudnn.fp32_precision = before[:2]
    backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision = before[2:4]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the sizes do not match"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        InputError("'out of memory.png' is not a picture"),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_the_allocator_of_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def _user(**values):
    """A user's settings of torch's newer API, by path."""
    for path, value in values.items():
        backend = torch.backends
        for name in path.split("_"):
            backend = getattr(backend, name)
        backend.fp32_precision = value


@pytest.mark.parametrize(
    "users",
    [
        {},
        {"cudnn": "ieee"},
        {"cudnn_conv": "ieee", "cuda_matmul": "tf32"},
        {"cudnn_conv": "tf32", "cuda_matmul": "ieee"},
        {"cudnn": "tf32", "cudnn_conv": "ieee"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_settings_hold_inside_and_are_restored(users, precision, expected):
    _user(**users)
    before = current()
    with settings(CUDA, precision, deterministic=True):
        assert current()[2:] == (expected, expected, True, False, True)
    assert current() == before
    with pytest.raises(ZeroDivisionError), settings(CUDA, precision, deterministic=True):
        raise ZeroDivisionError
    assert current() == before


# A user's settings, by both of torch's interfaces, and what convolutions and products do then.
_USERS = {
    "": "tf32 none",
    "b.cudnn.allow_tf32 = False": "none none",
    "b.cuda.matmul.allow_tf32 = True": "tf32 tf32",
    "torch.set_float32_matmul_precision('medium')": "tf32 tf32",
    "b.fp32_precision = 'ieee'": "ieee ieee",
    "b.fp32_precision = 'tf32'": "tf32 tf32",
}
_CHILD = """
import os, sys, torch, traceback
from vggfeat.features.device import settings
b = torch.backends
def new(): return b.cudnn.conv.fp32_precision, b.cuda.matmul.fp32_precision
def old():
    try: return b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError: return "refused"
def case(lines):
    exec(lines)
    before = new(), old()
    for precision in ("float32", "tf32"):
        with settings(torch.device("cuda"), precision, deterministic=True):
            assert new() == (("ieee", "ieee") if precision == "float32" else ("tf32", "tf32")), new()
    assert (new(), old()) == before, (new(), old(), before)
    print(*new(), flush=True)
    if not lines:
        b.fp32_precision = "ieee"
        print(*new(), flush=True)
for lines in sys.argv[1:]:
    if not (child := os.fork()):
        try: case(lines)
        except BaseException: traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="torch's untouched defaults need a process each")
def test_what_users_set_by_either_interface_is_restored():
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, *_USERS]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    default, after, *others = run.stdout.splitlines()
    assert [default, *others] == list(_USERS.values()), run.stderr
    assert after == "ieee ieee"  # a setting that was never made still follows its parent


def test_nested_settings_hold_from_the_inside_out():
    with settings(CUDA, "float32"):
        with settings(CUDA, "tf32"):
            assert current()[2:4] == ("tf32", "tf32")
        assert current()[2:4] == ("ieee", "ieee")


def test_passes_of_two_threads_restore_the_users_settings():
    before, meet = current(), Barrier(2)

    def first():
        with settings(CUDA, "float32"):
            meet.wait()
            meet.wait()

    def second():
        meet.wait()
        with settings(CUDA, "float32"):
            meet.wait()
            thread.join()  # the first to enter leaves first
            found.append(current()[2:4])

    found = []
    thread = Thread(target=first)
    thread.start()
    second()
    assert found == [("ieee", "ieee")]
    assert current() == before


@pytest.mark.parametrize("device", ["cpu", "meta", "mps"])
def test_other_devices_need_no_settings(device):
    before = current()
    with settings(torch.device(device), "float32", deterministic=True):
        assert current() == before


def test_half_precision_leaves_the_users_settings():
    before = current()
    with settings(CUDA, "bfloat16"):
        assert current() == before


@pytest.fixture
def cards(monkeypatch):
    """Two cards, of which the current one is the older."""
    capabilities = {0: (7, 5), 1: (9, 0)}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("precision", "place", "expected", "dtype"),
    [
        ("auto", "cuda:1", "bfloat16", torch.bfloat16),
        ("auto", "cuda:0", "float32", torch.float32),
        ("auto", "cuda", "float32", torch.float32),
        ("tf32", "cuda:1", "tf32", torch.float32),
        ("tf32", "cuda:0", "float32", torch.float32),
        ("tf32", "cpu", "float32", torch.float32),
        ("float16", "cuda:0", "float16", torch.float16),
        ("float32", "cuda:1", "float32", torch.float32),
        ("auto", "meta", "float32", torch.float32),
    ],
)
def test_the_device_at_hand_decides(precision, place, expected, dtype):
    assert choose_precision(precision, torch.device(place)) == expected
    assert resolve_precision(precision, torch.device(place)) == dtype


@pytest.mark.usefixtures("cards")
def test_a_card_is_described(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = describe(torch.device("cuda:1"))
    assert found["device"] == "cuda:1"
    assert (found["card"], found["capability"], found["cuda"], found["cudnn"]) == ("card 1", "9.0", "13.0", "92400")
    assert devices.describe(torch.device("cpu")).keys() == {"device", "torch", "cpu"}
