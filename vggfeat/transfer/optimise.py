"""Optimisers that keep an image inside [0, 1] while they minimise an objective.

The optimised image is the one that is saved: clamping only at the end would undo part of the optimisation.
Nothing here waits for a GPU: the device decides whether a step is accepted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.pictures import padding
from vggfeat.transfer.history import remember
from vggfeat.transfer.recipe import OptimiserName, Recipe


class LossAndGradient(NamedTuple):
    """An objective evaluated at one image.

    Args:
        loss: a scalar.
        gradient: of the image's shape, (1, 3, H, W).
        terms: {name: scalar}, which add up to the loss.
    """

    loss: Tensor
    gradient: Tensor
    terms: Mapping[str, Tensor]

    def state(self) -> dict[str, Tensor]:
        """All fields as named tensors."""
        terms = {f"term.{name}": value for name, value in self.terms.items()}
        return {"loss": self.loss, "gradient": self.gradient, **terms}

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> Self:
        """Rebuild from what `state()` returned."""
        terms = {name.removeprefix("term."): value for name, value in state.items() if name.startswith("term.")}
        return cls(state["loss"], state["gradient"], terms)


Closure = Callable[[Tensor], LossAndGradient]
"""Evaluates the objective at an image (1, 3, H, W)."""

# Number of pairs that L-BFGS keeps, and the number of values in all of them: 3.2e8 are 1.3 GB.
_HISTORY = 12
_MOST_VALUES = 320_000_000
_LEAST_HISTORY = 3
# A step may raise the loss by this share before it is rejected: half-precision losses are not smooth.
_TOLERATED_RISE = 0.05
# The preconditioner is a pyramid: each coarser level weighs _GAIN times as much as the next finer one.
# benchmarks/preconditioning.py measures the benefit. No level has a side below _COARSEST: in tiny pictures most of the
# change is in the finest detail.
_GAIN = 2.0
_LEVELS = 4
_COARSEST = 16
# Length of the very first step: the mean change of a value of the image.
_FIRST_CHANGE = 0.01


class Optimiser(ABC):
    """Holds an `image` (1, 3, H, W) in [0, 1] and the objective at that image, and improves both one step at a time.

    Args:
        image: where to start; it is clamped to [0, 1].
        closure: evaluates the objective.
        state: what `state()` returned, to resume from there instead.
    """

    image: Tensor
    evaluation: LossAndGradient

    def __init__(self, image: Tensor, closure: Closure, *, state: Mapping[str, Tensor] | None = None) -> None:
        self._closure = closure
        if state is not None:
            self.image, self.evaluation = state["image"], LossAndGradient.restored(state)
            return
        # One memory layout, so that a resumed run forms its sums in the same order.
        self.image = image.clamp(0, 1).contiguous()
        self.evaluation = closure(self.image)

    def state(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, by name."""
        return {"image": self.image, **self.evaluation.state()}

    @abstractmethod
    def step(self) -> None:
        """Move, and evaluate the objective once. Tensors handed out before are never overwritten."""


class BoundedLBFGS(Optimiser):
    """L-BFGS on the values strictly between the bounds, with projection onto [0, 1] after each step.

    Values at a bound whose gradient points outward are left out of the direction (two-metric projection, Bertsekas
    1982). There is no line search: the full step is tried, and rejected and shortened if the loss rises, so that a
    step costs one evaluation. A pyramid preconditions the initial inverse Hessian, since coarse structure changes more
    easily than fine detail. torch.optim.LBFGS has neither bounds nor a preconditioner.
    """

    def __init__(
        self, image: Tensor, closure: Closure, *, wrap: bool = False, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Arguments as in `Optimiser`; `wrap`: opposite edges of the image are neighbours."""
        super().__init__(image, closure, state=state)
        self._wrap = wrap
        self._pairs = remember(history(image.numel()), self.image, state or {})
        if state is not None:
            self._shrink, self._scale = state["shrink"], state["scale"]
            return
        self._shrink = torch.ones_like(self.evaluation.loss)
        # Scale of the inverse Hessian; the first step then changes a value by _FIRST_CHANGE on average.
        self._scale = _FIRST_CHANGE / self._precondition(self.evaluation.gradient).abs().mean().clamp_min(1e-20)

    def state(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, by name."""
        return {**super().state(), "shrink": self._shrink, "scale": self._scale, **self._pairs.state()}

    def step(self) -> None:
        """Try a step. If the loss rises, keep the image and make the next step shorter."""
        x, gradient = self.image, self.evaluation.gradient
        free = ~(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)))
        downhill = -gradient * free
        direction = self._pairs.inverse_hessian(downhill, self._initial) * free
        direction = torch.where((direction * gradient).sum() < 0, direction, self._scale * downhill)
        candidate = (x + self._shrink * direction).clamp_(0, 1)
        found = self._closure(candidate)
        self._remember(candidate - x, found.gradient - gradient)
        before = self.evaluation
        accepted = found.loss <= before.loss + _TOLERATED_RISE * before.loss.abs()
        self.image = torch.where(accepted, candidate, x)
        self.evaluation = LossAndGradient(
            torch.where(accepted, found.loss, before.loss),
            torch.where(accepted, found.gradient, gradient),
            {name: torch.where(accepted, value, before.terms[name]) for name, value in found.terms.items()},
        )
        self._shrink = torch.where(accepted, 1.0, self._shrink * 0.25)

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """Store a change of the image and of its gradient; a pair of negative curvature has weight 0."""
        curvature, size = (s * y).sum(), (y * self._precondition(y)).sum()
        useful = curvature > 1e-10 * size
        self._pairs.add(s, y, torch.where(useful, 1 / curvature, 0.0))
        self._scale = torch.where(useful, curvature / size, self._scale)

    def _precondition(self, x: Tensor) -> Tensor:
        return precondition(x, wrap=self._wrap)

    def _initial(self, x: Tensor) -> Tensor:
        """The first estimate of the inverse Hessian times `x`."""
        return self._scale * self._precondition(x)


def precondition(x: Tensor, *, wrap: bool = False, levels: int = _LEVELS) -> Tensor:
    """Amplify the coarse structure of the gradient `x` (N, C, H, W): a symmetric positive definite pyramid.

    `levels` is the number of coarser levels. `wrap`: opposite edges of the image are neighbours.
    """
    height, width = x.shape[2:]
    if not levels or min(height, width) < 2 * _COARSEST:
        return x
    # Downsample by the transpose of the upsampling, which keeps the pyramid symmetric.
    coarse = precondition(downsample(x, wrap=wrap), wrap=wrap, levels=levels - 1)
    return x + _GAIN * upsample(coarse, height, width, wrap=wrap)


def upsample(coarse: Tensor, height: int, width: int, *, wrap: bool) -> Tensor:
    """`coarse` at twice its size, cropped to `height` x `width`."""
    if wrap:
        coarse = padding.wrap_pad(coarse, 1)
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    begin = 2 if wrap else 0
    return fine[:, :, begin : begin + height, begin : begin + width]


def downsample(fine: Tensor, *, wrap: bool) -> Tensor:
    """A quarter of the transpose of `upsample`: `fine` at half its size, rounded up.

    Along each axis the weights are 1/8, 3/8, 3/8, 1/8. Autograd gives the same to 1e-7, but its gradient of a bilinear
    upsampling differs from run to run on CUDA.
    """
    for axis in (2, 3):
        side = fine.shape[axis]
        first, last = fine.narrow(axis, 0, 1), fine.narrow(axis, side - 1, 1)
        if side % 2:
            # The cropped column of an odd size is 0, and so is the one beyond it unless the image wraps.
            zero = torch.zeros_like(first)
            parts = [zero if wrap else first, fine, zero, first if wrap else zero]
        else:
            parts = [last, fine, first] if wrap else [first, fine, last]
        padded = torch.cat(parts, dim=axis)
        even, odd = padded.unflatten(axis, (-1, 2)).unbind(axis + 1)
        count = even.shape[axis] - 1
        outer = even.narrow(axis, 0, count) + odd.narrow(axis, 1, count)
        inner = odd.narrow(axis, 0, count) + even.narrow(axis, 1, count)
        fine = torch.add(0.375 * inner, outer, alpha=0.125)
    return fine


def history(values: int) -> int:
    """Number of pairs that L-BFGS keeps for an image of this many values: fewer for large images."""
    return max(_LEAST_HISTORY, min(_HISTORY, _MOST_VALUES // (2 * values)))


_ADAM = ("step", "exp_avg", "exp_avg_sq")


class BoundedAdam(Optimiser):
    """Adam (Kingma & Ba, 2015), with projection onto [0, 1] after each step."""

    def __init__(
        self, image: Tensor, closure: Closure, *, learning_rate: float, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Arguments as in `Optimiser`; `learning_rate` is for values in [0, 1]."""
        super().__init__(image, closure, state=state)
        self._variable = self.image.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._variable], lr=learning_rate, betas=(0.9, 0.99))
        if state is not None:
            self._adam.state[self._variable] = {name: state[f"adam.{name}"] for name in _ADAM}

    def state(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, by name."""
        known = self._adam.state[self._variable]
        return {**super().state(), **{f"adam.{name}": known[name] for name in _ADAM if known}}

    def step(self) -> None:
        """Take one step of Adam, and evaluate the objective at the new image."""
        self._variable.grad = self.evaluation.gradient
        # torch updates its moments in place: copy them, so that an earlier `state()` stays as it was.
        known = self._adam.state[self._variable]
        self._adam.state[self._variable] = {name: x.clone() for name, x in known.items()}
        self._adam.step()
        with torch.no_grad():
            self.image = self._variable.clamp_(0, 1).clone()
        self.evaluation = self._closure(self.image)


class BoundedDescent(Optimiser):
    """Gradient descent with steps of equal length, and projection onto [0, 1] after each step.

    For objectives without a minimum, such as the activations that a dream raises.
    """

    def __init__(
        self, image: Tensor, closure: Closure, *, rate: float, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Arguments as in `Optimiser`; `rate` is the mean absolute change of a value in a step."""
        super().__init__(image, closure, state=state)
        self._rate = rate

    def step(self) -> None:
        """Take one step, and evaluate the objective at the new image."""
        gradient = self.evaluation.gradient
        length = gradient.abs().mean().clamp_min(1e-20)
        self.image = (self.image - self._rate / length * gradient).clamp_(0, 1)
        self.evaluation = self._closure(self.image)


_Make = Callable[[Tensor, Closure, Recipe, Mapping[str, Tensor] | None], Optimiser]

OPTIMISERS: Mapping[OptimiserName, _Make] = {
    "lbfgs": lambda x, closure, recipe, state: BoundedLBFGS(x, closure, wrap=recipe.edges == "wrap", state=state),
    "adam": lambda x, closure, recipe, state: BoundedAdam(x, closure, learning_rate=recipe.learning_rate, state=state),
}
"""The optimisers of a recipe, each made from the image, the closure, the recipe, and a state to resume from."""
