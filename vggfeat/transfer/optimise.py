"""Optimisers that keep an image inside [0, 1] while they minimise.

What is optimised is then what is saved: an image that is clamped only at the end loses much of what was won.
Nothing here waits for a GPU: whether a step is taken is decided on the device.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Evaluation(NamedTuple):
    """An objective at one image: the loss, a scalar; its gradient, of the image's shape; the terms it is the sum of."""

    loss: Tensor
    gradient: Tensor
    terms: Mapping[str, Tensor]


Evaluate = Callable[[Tensor], Evaluation]

_HISTORY = 12
# A step may raise the loss by this share before it is taken back: half-precision losses are not smooth.
_TOLERATED_RISE = 0.05
# Length of the very first step: the mean change of a value of the image.
_FIRST_CHANGE = 0.01


class Optimiser(Protocol):
    """Holds an `image` and the objective at it, `here`, and improves both one step at a time."""

    image: Tensor
    here: Evaluation

    def step(self) -> None:
        """Move, and evaluate the objective once. What was held before is left as it is."""
        ...


class BoundedLBFGS:
    """L-BFGS on the values strictly between the bounds, projected on [0, 1] after each step.

    Values that stand at a bound and whose gradient points outward are left out of the direction (the two-metric
    projection of Bertsekas, 1982). There is no line search: a full step is tried, and taken back and shortened where
    the loss rises, so that a step costs one evaluation.
    """

    def __init__(self, image: Tensor, evaluate: Evaluate) -> None:
        self.image = image.clamp(0, 1)
        self.here = evaluate(self.image)
        self._evaluate = evaluate
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._shrink = torch.ones_like(self.here.loss)
        # The inverse Hessian's scale, at first such that the first step moves a value by _FIRST_CHANGE on average.
        self._scale = _FIRST_CHANGE / self.here.gradient.abs().mean().clamp_min(1e-20)

    def step(self) -> None:
        """Try a step; keep the image as it is, and remember to step shorter, where the loss would rise."""
        x, gradient = self.image, self.here.gradient
        free = ~(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)))
        downhill = -gradient * free
        direction = self._inverse_hessian(downhill) * free
        direction = torch.where((direction * gradient).sum() < 0, direction, self._scale * downhill)
        candidate = (x + self._shrink * direction).clamp_(0, 1)
        there = self._evaluate(candidate)
        self._remember(candidate - x, there.gradient - gradient)
        taken = there.loss <= self.here.loss + _TOLERATED_RISE * self.here.loss.abs()
        self.image = torch.where(taken, candidate, x)
        self.here = Evaluation(
            torch.where(taken, there.loss, self.here.loss),
            torch.where(taken, there.gradient, gradient),
            {name: torch.where(taken, value, self.here.terms[name]) for name, value in there.terms.items()},
        )
        self._shrink = torch.where(taken, 1.0, self._shrink * 0.25)

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """Keep a change of the image and that of its gradient; one of negative curvature gets no weight."""
        curvature, size = (s * y).sum(), y.square().sum()
        useful = curvature > 1e-10 * size
        self._pairs = [*self._pairs[1 - _HISTORY :], (s, y, torch.where(useful, 1 / curvature, 0.0))]
        self._scale = torch.where(useful, curvature / size, self._scale)

    def _inverse_hessian(self, vector: Tensor) -> Tensor:
        """The estimated inverse Hessian times `vector`, by the two-loop recursion (Nocedal, 1980)."""
        q = vector.clone()
        alphas: list[Tensor] = []
        for s, y, weight in reversed(self._pairs):
            alphas.append(weight * (s * q).sum())
            q -= alphas[-1] * y
        q *= self._scale
        for s, y, weight in self._pairs:
            q += (alphas.pop() - weight * (y * q).sum()) * s
        return q


class BoundedAdam:
    """Adam (Kingma & Ba, 2015), projected on [0, 1] after each step."""

    def __init__(self, image: Tensor, evaluate: Evaluate, *, learning_rate: float) -> None:
        self.image = image.clamp(0, 1)
        self.here = evaluate(self.image)
        self._evaluate = evaluate
        self._variable = self.image.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._variable], lr=learning_rate, betas=(0.9, 0.99))

    def step(self) -> None:
        """One step of Adam, and the objective where it leads."""
        self._variable.grad = self.here.gradient
        self._adam.step()  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        with torch.no_grad():
            self.image = self._variable.clamp_(0, 1).clone()
        self.here = self._evaluate(self.image)
