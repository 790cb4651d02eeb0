"""Optimisers that keep an image inside [0, 1] while they minimise.

What is optimised is then what is saved: an image that is clamped only at the end loses much of what was won.
Nothing here waits for a GPU: whether a step is taken is decided on the device.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.pictures import padding


class Evaluation(NamedTuple):
    """An objective at one image: the loss, a scalar; its gradient, of the image's shape; the terms it is the sum of."""

    loss: Tensor
    gradient: Tensor
    terms: Mapping[str, Tensor]

    def state(self) -> dict[str, Tensor]:
        """All of it as named tensors."""
        terms = {f"term.{name}": value for name, value in self.terms.items()}
        return {"loss": self.loss, "gradient": self.gradient, **terms}

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> Self:
        """The evaluation that `state()` described."""
        terms = {name.removeprefix("term."): value for name, value in state.items() if name.startswith("term.")}
        return cls(state["loss"], state["gradient"], terms)


Evaluate = Callable[[Tensor], Evaluation]

# Pairs that L-BFGS remembers, and how many values all of them may hold: 3.2e8 are 1.3 GB.
_HISTORY = 12
_MOST_REMEMBERED = 320_000_000
_LEAST_HISTORY = 3
# A step may raise the loss by this share before it is taken back: half-precision losses are not smooth.
_TOLERATED_RISE = 0.05
# The inverse Hessian starts as a pyramid: what is alike over 2x2 pixels changes so much more easily than grain does,
# what is alike over 4x4 by the square of it, and so on: benchmarks/preconditioning.py prints what that is worth. Levels
# end before a side is shorter than _COARSEST: of tiny pictures grain is most of what must change.
_EASE = 2.0
_LEVELS = 4
_COARSEST = 16
# Length of the very first step: the mean change of a value of the image.
_FIRST_CHANGE = 0.01


class Optimiser(Protocol):
    """Holds an `image` and the objective at it, `here`, and improves both one step at a time."""

    image: Tensor
    here: Evaluation

    def step(self) -> None:
        """Move, and evaluate the objective once. What was held before is left as it is."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, by name."""
        ...


class BoundedLBFGS:
    """L-BFGS on the values strictly between the bounds, projected on [0, 1] after each step.

    Values that stand at a bound and whose gradient points outward are left out of the direction (the two-metric
    projection of Bertsekas, 1982). There is no line search: a full step is tried, and taken back and shortened where
    the loss rises, so that a step costs one evaluation. What the pairs of steps say nothing about is preconditioned by
    a pyramid, since flat colours are easier to change than grain.
    """

    def __init__(
        self, image: Tensor, evaluate: Evaluate, *, wrap: bool = False, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start at `image`, whose edges meet where they `wrap`, or go on from what `state()` returned."""
        self._evaluate = evaluate
        self._wrap = wrap
        self._history = history(image.numel())
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        if state is not None:
            self.image, self.here = state["image"], Evaluation.restored(state)
            self._shrink, self._scale = state["shrink"], state["scale"]
            count = sum(name.startswith("pair.") for name in state) // 3
            self._pairs = [
                (state[f"pair.{i}.s"], state[f"pair.{i}.y"], state[f"pair.{i}.weight"]) for i in range(count)
            ]
            return
        # In one layout, so that sums are formed in the same order when a run is resumed.
        self.image = image.clamp(0, 1).contiguous()
        self.here = evaluate(self.image)
        self._shrink = torch.ones_like(self.here.loss)
        # The inverse Hessian's scale, at first such that the first step moves a value by _FIRST_CHANGE on average.
        self._scale = _FIRST_CHANGE / self._eased(self.here.gradient).abs().mean().clamp_min(1e-20)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, by name."""
        pairs = {
            f"pair.{index}.{name}": tensor
            for index, pair in enumerate(self._pairs)
            for name, tensor in zip(("s", "y", "weight"), pair, strict=True)
        }
        return {"image": self.image, "shrink": self._shrink, "scale": self._scale, **self.here.state(), **pairs}

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
        curvature, size = (s * y).sum(), (y * self._eased(y)).sum()
        useful = curvature > 1e-10 * size
        self._pairs = [*self._pairs[1 - self._history :], (s, y, torch.where(useful, 1 / curvature, 0.0))]
        self._scale = torch.where(useful, curvature / size, self._scale)

    def _eased(self, x: Tensor) -> Tensor:
        return eased(x, wrap=self._wrap)

    def _inverse_hessian(self, vector: Tensor) -> Tensor:
        """The estimated inverse Hessian times `vector`, by the two-loop recursion (Nocedal, 1980)."""
        q = vector.clone()
        alphas: list[Tensor] = []
        for s, y, weight in reversed(self._pairs):
            alphas.append(weight * (s * q).sum())
            q -= alphas[-1] * y
        q = self._scale * self._eased(q)
        for s, y, weight in self._pairs:
            q += (alphas.pop() - weight * (y * q).sum()) * s
        return q


def eased(x: Tensor, *, wrap: bool = False, levels: int = _LEVELS) -> Tensor:
    """The gradient `x` (N, C, H, W), and more of it the coarser it is: a symmetric, positive definite pyramid.

    `wrap`: the left edge of the image meets the right, and the top the bottom.
    """
    height, width = x.shape[2:]
    if not levels or min(height, width) < 2 * _COARSEST:
        return x
    half = x.new_zeros(*x.shape[:2], -(-height // 2), -(-width // 2)).requires_grad_()
    # Made coarse by the transpose of what enlarges, which keeps the pyramid symmetric.
    (sums,) = torch.autograd.grad(_enlarged(half, height, width, wrap=wrap), half, x)
    coarse = eased(sums / 4, wrap=wrap, levels=levels - 1)
    return x + _EASE * _enlarged(coarse, height, width, wrap=wrap)


def _enlarged(coarse: Tensor, height: int, width: int, *, wrap: bool) -> Tensor:
    """Twice as large, to `height` x `width`."""
    if wrap:
        coarse = padding.wrap_pad(coarse, 1)
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    begin = 2 if wrap else 0
    return fine[:, :, begin : begin + height, begin : begin + width]


def history(values: int) -> int:
    """How many pairs L-BFGS remembers of an image of so many values: large pictures get fewer."""
    return max(_LEAST_HISTORY, min(_HISTORY, _MOST_REMEMBERED // (2 * values)))


_ADAM = ("step", "exp_avg", "exp_avg_sq")


class BoundedAdam:
    """Adam (Kingma & Ba, 2015), projected on [0, 1] after each step."""

    def __init__(
        self, image: Tensor, evaluate: Evaluate, *, learning_rate: float, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start at `image`, or go on from what `state()` returned."""
        self.image = image.clamp(0, 1) if state is None else state["image"]
        self.here = evaluate(self.image) if state is None else Evaluation.restored(state)
        self._evaluate = evaluate
        self._variable = self.image.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._variable], lr=learning_rate, betas=(0.9, 0.99))
        if state is not None:
            self._adam.state[self._variable] = {name: state[f"adam.{name}"] for name in _ADAM}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, by name."""
        known = self._adam.state[self._variable]
        return {"image": self.image, **self.here.state(), **{f"adam.{name}": known[name] for name in _ADAM if known}}

    def step(self) -> None:
        """One step of Adam, and the objective where it leads."""
        self._variable.grad = self.here.gradient
        # torch changes its moments in place: these are new ones, so that those of an earlier `state()` stay.
        known = self._adam.state[self._variable]
        self._adam.state[self._variable] = {name: x.clone() for name, x in known.items()}
        self._adam.step()  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        with torch.no_grad():
            self.image = self._variable.clamp_(0, 1).clone()
        self.here = self._evaluate(self.image)


class BoundedDescent:
    """Steps down the gradient, each of the same length, projected on [0, 1].

    For objectives that are never reached, such as the activations that a dream raises: `rate` is the mean change of a
    value in a step, whatever the objective's scale.
    """

    def __init__(
        self, image: Tensor, evaluate: Evaluate, *, rate: float, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start at `image`, or go on from what `state()` returned."""
        self._evaluate = evaluate
        self._rate = rate
        self.image = image.clamp(0, 1) if state is None else state["image"]
        self.here = evaluate(self.image) if state is None else Evaluation.restored(state)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, by name."""
        return {"image": self.image, **self.here.state()}

    def step(self) -> None:
        """One step, and the objective where it leads."""
        length = self.here.gradient.abs().mean().clamp_min(1e-20)
        self.image = (self.image - self._rate / length * self.here.gradient).clamp_(0, 1)
        self.here = self._evaluate(self.image)
