"""What a step asks of its device: kernels, waits, copies, and operations whose result changes from run to run.

Steps run on torch's `meta` device, which computes shapes only: what would make a CPU wait for a GPU, such as reading a
number, raises an error there.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that give other bits in each run on CUDA, since they add in the order that threads arrive in: those that
# `torch.use_deterministic_algorithms` lists, as their backward passes are called. `max_pool2d_with_indices_backward`
# is left out: windows that do not overlap add one number each.
NONDETERMINISTIC = (
    "_cummax_helper",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "bincount",
    "grid_sampler_2d_backward",
    "histc",
    "index_add",
    "index_copy",
    "index_put",
    "kthvalue",
    "max_pool3d_with_indices_backward",
    "median",
    "put",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "replication_pad2d_backward",
    "scatter_add",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "_upsample_bicubic2d_aa_backward",
    "_upsample_bilinear2d_aa_backward",
)
# Operations that wait for the device because the size of their result depends on values, or their checks do.
WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique2", "unique_dim",
           "linalg_eigh", "_linalg_eigh", "linalg_svd", "_linalg_svd", "linalg_solve_ex")  # fmt: skip
# Neither a kernel nor a copy: they make a tensor's description.
_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "detach")


class Recorder(TorchDispatchMode):
    """Counts what runs inside `with Recorder() as recorder:`; `refuse` makes nondeterministic operations an error."""

    def __init__(self, *, refuse: bool = False) -> None:
        super().__init__()
        self.refuse = refuse
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.nondeterministic: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name().removeprefix("aten::").split(".")[0].rstrip("_")
        result = function(*arguments, **(options or {}))
        if function.namespace != "aten" or function.is_view or name in _FREE:
            return result
        given = {x.device.type for x in _tensors((arguments, options))}
        made = {x.device.type for x in _tensors(result)}
        if name in NONDETERMINISTIC and "meta" in given and not (name == "index_put" and not _accumulates(arguments)):
            if self.refuse:
                raise AssertionError(f"{name} gives other bits in each run on CUDA")
            self.nondeterministic[name] += 1
        if name in WAITING and "meta" in given:
            self.waits[name] += 1
        if given and "cpu" in given | made and "meta" in given | made:
            if name in {"_to_copy", "copy"}:
                self.copies["to the device" if "meta" in made else "to the host"] += 1
            self.kernels[name] += 1
        elif "meta" in given | made:
            self.kernels[name] += 1
        return result


def _accumulates(arguments) -> bool:
    return len(arguments) > 3 and bool(arguments[3])


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
