"""Devices and precisions by the names that users give them, torch's settings for them, and running out of memory."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any, Literal

import torch

from vggfeat.errors import InputError, one_of
from vggfeat.features import algorithms

Precision = Literal["float32", "tf32", "bfloat16", "float16", "auto"]
Chosen = Literal["float32", "tf32", "bfloat16", "float16"]
Arithmetic = Literal["float32", "tf32"]
"""How tensors in float32 are multiplied on CUDA."""
_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Torch's names for the arithmetic of float32 on CUDA.
_ARITHMETIC: Mapping[str | None, str] = {"float32": "ieee", "tf32": "tf32"}

# NVIDIA's first cards with bfloat16 and TF32: Ampere.
_AMPERE = (8, 0)


def choose_precision(precision: Precision, device: torch.device) -> Chosen:
    """The precision that `precision` means on `device`.

    - `float32` is IEEE float32 on every device. (By default torch lets cuDNN round the factors of float32 convolutions
      to TF32, which changes features by about a thousandth of the largest value.)
    - `tf32` stores float32 and multiplies in TF32, with a mantissa of 10 bits, on NVIDIA cards from Ampere on. Devices
      without TF32 compute `float32`, and that is what is returned for them.
    - `auto` is `bfloat16` where that is faster: on CUDA from Ampere on, and on CPUs with AMX or AVX512-BF16. It is
      `float32` elsewhere, also on older cards, whose only fast format is float16.

    `auto` prefers bfloat16 to float16 because it has the range of float32. float16 is more precise: its gradient
    through VGG-19 has a cosine of 0.999 to that of float32, bfloat16's 0.987. But activations above 65504 become
    infinite (those of the original Caffe weights reach 10000 on an ordinary photograph), and gradients below 6e-8
    become zero unless the loss is scaled, which only the caller can do. Ask for `float16` by name if you do, or if you
    need no gradient.

    >>> choose_precision("tf32", torch.device("cpu")), choose_precision("float16", torch.device("cpu"))
    ('float32', 'float16')
    """
    one_of("precision", precision, (*_DTYPES, "auto"))
    if precision == "auto":
        return "bfloat16" if _bfloat16_is_faster(device) else "float32"
    if precision == "tf32" and not (device.type == "cuda" and _is_ampere(device)):
        return "float32"
    return precision


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of `choose_precision`.

    >>> resolve_precision("tf32", torch.device("cpu"))
    torch.float32
    """
    return _DTYPES[choose_precision(precision, device)]


def _bfloat16_is_faster(device: torch.device) -> bool:
    if device.type == "cpu":
        return algorithms.bfloat16_is_faster()
    return device.type == "cuda" and _is_ampere(device)


def _is_ampere(device: torch.device) -> bool:
    """Whether a CUDA device multiplies bfloat16 and TF32 in hardware."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= _AMPERE


def choose_device(name: str | torch.device | None) -> torch.device:
    """The torch device called `name`: None is torch's default, `auto` CUDA, else MPS, else the CPU.

    Raises `InputError` for a device that does not exist here.
    """
    if name is None:
        return torch.get_default_device()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}': pass auto, cpu, cuda, cuda:1 or mps") from None
    if device.type in ("cpu", "meta"):
        return device
    count = torch.accelerator.device_count()
    present = torch.accelerator.current_accelerator() if count else None
    if present is None or present.type != device.type or (device.index or 0) >= count:
        here = f"{count} of type {present.type}" if present else "only the CPU"
        raise InputError(f"there is no device '{name}' here: torch sees {here}")
    return device


def describe(device: torch.device) -> dict[str, str]:
    """The device and versions that results may depend on, for records of a run.

    `device`, `torch` and `cpu` (torch's name for the processor's capability); on CUDA also `card`, `capability`, `cuda`
    (or `hip`) and `cudnn`.

    >>> sorted(describe(torch.device("cpu")))
    ['cpu', 'device', 'torch']
    """
    found = {
        "device": str(device),
        "torch": str(torch.__version__),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found |= {
            "card": torch.cuda.get_device_name(device),
            "capability": f"{major}.{minor}",
            "hip" if torch.version.hip else "cuda": str(torch.version.hip or torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return found


# Texts of errors of running out of memory that have no type of their own: of the CPU's allocator, of CUDA's runtime
# (`torch.AcceleratorError`), and of cuDNN and cuBLAS, which fail to allocate their workspaces.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the CPU or on a GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("sizes do not match"))
    (True, False)
    >>> is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(known.lower() in text for known in _OUT_OF_MEMORY)


_PARENT = torch.backends.cudnn
_OPERATIONS: tuple[Any, ...] = (
    torch.backends.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue] (torch's stubs lack it)
    torch.backends.cuda.matmul,
)


class _Float32OnCuda:
    """Torch's settings of float32 arithmetic on CUDA, set while passes run, then restored to the user's values.

    The settings belong to the process, and passes of several threads overlap: each GPU has its own thread for backward
    passes. So the first pass to enter saves the user's values, and the last one to leave restores them.

    Only torch's newer API is used, because reading `allow_tf32` raises once a user has set that one. An operation that
    the user has not set follows its parent, the setting of the whole of cuDNN, so that is set, and restored, first.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: list[list[str]] = []
        self._before: list[tuple[Any, str]] = []

    @contextmanager
    def hold(self, wanted: str) -> Generator[None]:
        """Compute float32 in `wanted`: `ieee` or `tf32`. Of nested calls, the innermost one holds."""
        entry = [wanted]
        with self._lock:
            if not self._held:
                self._before = _users_settings()
            self._held.append(entry)
            self._write(wanted)
        try:
            yield
        finally:
            with self._lock:
                self._held = [other for other in self._held if other is not entry]
                if self._held:
                    self._write(self._held[-1][0])
                else:
                    for backend, value in self._before:
                        backend.fp32_precision = value

    def _write(self, wanted: str) -> None:
        for backend, _ in self._before:
            backend.fp32_precision = wanted


def _users_settings() -> list[tuple[Any, str]]:
    """The user's settings: the parent first, then each operation that does not follow it."""
    now = _PARENT.fp32_precision
    values: dict[str, list[str]] = {}
    for value in ("none", "ieee", "tf32"):
        _PARENT.fp32_precision = value
        values[value] = [backend.fp32_precision for backend in (_PARENT, *_OPERATIONS)]
    inherited = values["none"][0]
    own = [
        (backend, ieee)
        for backend, ieee, tf32 in zip(_OPERATIONS, values["ieee"][1:], values["tf32"][1:], strict=True)
        if ieee == tf32
    ]
    return [(_PARENT, "none" if now == inherited else now), *own]


_float32_on_cuda = _Float32OnCuda()


@contextmanager
def settings(device: torch.device, precision: str | None = None, *, deterministic: bool = False) -> Generator[None]:
    """Compute in `precision` on CUDA inside the block, whatever the user has set; other devices need no settings.

    Args:
        device: where the block computes.
        precision: `float32` computes convolutions and matrix products in IEEE float32, `tf32` lets them use TF32.
            Other values change nothing, since the user's settings do not concern half precision.
        deterministic: make cuDNN choose algorithms that give the same result each time.

    The user's settings are restored when the block ends, also by an exception. They are settings of the process: other
    threads that compute meanwhile are subject to them too.

    >>> with settings(torch.device("cuda"), "float32"):
    ...     torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    ('ieee', 'ieee')
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            if precision in _ARITHMETIC:
                stack.enter_context(_float32_on_cuda.hold(_ARITHMETIC[precision]))
            if deterministic:
                stack.enter_context(_repeatable())
        yield


@contextmanager
def _repeatable() -> Generator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, False, True
    try:
        yield
    finally:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = before
