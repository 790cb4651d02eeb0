"""Engines by name."""

from typing import Literal, get_args

from vggfeat.dumps.engine import Engine, LocalEngine
from vggfeat.errors import RecipeError, one_of

EngineName = Literal["local", "ray"]


def named_engine(name: str, workers: int | None) -> Engine:
    """The engine called `name`. Raises `RecipeError` if it is unknown, `InputError` if its library is missing."""
    if one_of("engine", name, get_args(EngineName), kind=RecipeError) == "local":
        return LocalEngine(workers)
    from vggfeat.dumps.ray_engine import RayEngine

    return RayEngine(workers=workers)
