"""The changes that L-BFGS remembers, and the estimate of the inverse Hessian that they make.

A pair holds a change `s` of the image, the change `y` of its gradient, and a weight: 1 / (s · y), or 0 to leave it out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]

# Values that one product adds up: a GPU needs many sums at a time.
_CHUNK = 16384


class History(Protocol):
    """Remembers the last pairs."""

    def add(self, s: Tensor, y: Tensor, weight: Tensor) -> None:
        """Remember a pair, and forget the oldest one if there are as many as fit."""
        ...

    def inverse_hessian(self, vector: Tensor, initial: Multiply) -> Tensor:
        """The estimated inverse Hessian times `vector` (1, 3, H, W); `initial` multiplies by the first estimate."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All pairs by name, from the oldest on. The next `add` does not overwrite these tensors."""
        ...


class ListedHistory:
    """Keeps pairs as they come, and computes the two-loop recursion (Nocedal, 1980) as it is written.

    Args:
        count: how many pairs to remember.
        image: a tensor of the shape, type and device of the changes.
        state: what `state()` returned, to resume from there.
    """

    def __init__(self, count: int, image: Tensor, state: Mapping[str, Tensor]) -> None:
        self._count = count
        self._pairs = list(_pairs(state, image.device))

    def add(self, s: Tensor, y: Tensor, weight: Tensor) -> None:
        """Remember a pair."""
        self._pairs = [*self._pairs[1 - self._count :], (s, y, weight)]

    def inverse_hessian(self, vector: Tensor, initial: Multiply) -> Tensor:
        """The estimated inverse Hessian times `vector`."""
        q = vector.clone()
        alphas: list[Tensor] = []
        for s, y, weight in reversed(self._pairs):
            alphas.append(weight * (s * q).sum())
            q -= alphas[-1] * y
        q = initial(q)
        for s, y, weight in self._pairs:
            q += (alphas.pop() - weight * (y * q).sum()) * s
        return q

    def state(self) -> dict[str, Tensor]:
        """All pairs by name."""
        return _named(self._pairs)


class StackedHistory:
    """Keeps pairs in two tensors. The recursion then takes few kernels, however many pairs there are.

    Given all products s · y, the recursion's sums over newer pairs are a triangular system of equations, and so are
    those over older pairs. Pairs that are not there yet have the weight 0. Arguments as in `ListedHistory`.
    """

    def __init__(self, count: int, image: Tensor, state: Mapping[str, Tensor]) -> None:
        # One place more than pairs is free, so that `add` overwrites no pair of the last `state`.
        self._places = count + 1
        self._known = 0
        # Resumed runs use the same places, to form their sums in the same order.
        self._free = (int(state["free"]) - _known(state) if "free" in state else 0) % self._places
        self._shape = image.shape
        self._s, self._y = (image.new_zeros(self._places, image.numel()) for _ in range(2))
        # These are ordered by age: the free place, then the pairs from the oldest to the newest.
        self._weights = image.new_zeros(self._places)
        self._products = image.new_zeros(self._places, self._places)
        for pair in _pairs(state, image.device):
            self.add(*pair)

    def add(self, s: Tensor, y: Tensor, weight: Tensor) -> None:
        """Remember a pair."""
        y = y.reshape(-1)
        self._s[self._free] = s.reshape(-1)
        self._y[self._free] = y
        self._free = (self._free + 1) % self._places
        self._known = min(self._known + 1, self._places - 1)
        with_newest = self._by_age(_dots(self._s, y))[:, None]
        self._products = torch.cat([self._products.roll(-1, 0)[:, 1:], with_newest], dim=1)
        self._weights = torch.cat([torch.zeros_like(self._weights[:1]), self._weights[2:], weight.reshape(1)])

    def inverse_hessian(self, vector: Tensor, initial: Multiply) -> Tensor:
        """The estimated inverse Hessian times `vector`."""
        weights, newer = self._weights[:, None], self._products.triu(1)
        q = vector.reshape(-1)
        sums = self._by_age(_dots(self._s, q))[:, None]
        alphas = torch.linalg.solve_triangular(weights * newer, weights * sums, upper=True, unitriangular=True)
        q = initial((q - self._combined(self._y, alphas)).view(self._shape)).reshape(-1)
        sums = self._by_age(_dots(self._y, q))[:, None] + newer.mT @ alphas
        betas = torch.linalg.solve_triangular(weights * newer.mT, weights * sums, upper=False, unitriangular=True)
        return (q + self._combined(self._s, alphas - betas)).view(self._shape)

    def state(self) -> dict[str, Tensor]:
        """All pairs by name, as views."""
        ages = range(self._places - self._known, self._places)
        places = [(self._free + age) % self._places for age in ages]
        pairs = [
            (self._s[place].view(self._shape), self._y[place].view(self._shape), self._weights[age])
            for place, age in zip(places, ages, strict=True)
        ]
        return {**_named(pairs), "free": torch.tensor(self._free, device="cpu")}

    def _by_age(self, values: Tensor) -> Tensor:
        return values.roll(-self._free)

    def _combined(self, stack: Tensor, factors: Tensor) -> Tensor:
        """The sum of all places times their factors (P, 1), which are ordered by age."""
        return factors[:, 0].roll(self._free) @ stack


def _dots(stack: Tensor, vector: Tensor) -> Tensor:
    """The inner products of the rows of `stack` (P, V) with `vector` (V,): (P,)."""
    chunks = len(vector) // _CHUNK
    whole = chunks * _CHUNK
    parts = torch.bmm(
        stack[:, :whole].unflatten(1, (chunks, _CHUNK)).transpose(0, 1), vector[:whole].view(chunks, _CHUNK, 1)
    )
    return parts.sum(0)[:, 0] + stack[:, whole:] @ vector[whole:]


def _known(state: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("pair.") for name in state) // 3


def _pairs(state: Mapping[str, Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The pairs of a state, which may be on the host, moved one by one."""
    for i in range(_known(state)):
        s, y, weight = (state[f"pair.{i}.{name}"].to(device) for name in ("s", "y", "weight"))
        yield s, y, weight


def _named(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    return {
        f"pair.{index}.{name}": tensor
        for index, pair in enumerate(pairs)
        for name, tensor in zip(("s", "y", "weight"), pair, strict=True)
    }


def remember(count: int, image: Tensor, state: Mapping[str, Tensor]) -> History:
    """The history of an image like `image`, with the arguments of `ListedHistory`.

    It is stacked on CUDA, and on the meta device, which stands for it; elsewhere the start of a kernel costs little.
    """
    return (StackedHistory if image.device.type in ("cuda", "meta") else ListedHistory)(count, image, state)
