"""Every public name has a page in the reference and an example that runs."""

import re
from pathlib import Path
from types import ModuleType

import vggfeat

INDEX = Path(__file__).parents[1] / "docs" / "reference" / "index.rst"
PUBLIC = {name: getattr(vggfeat, name) for name in dir(vggfeat) if not name.startswith("_")}


def page(name):
    """What the reference calls a public name: a module goes by its full name."""
    found = PUBLIC[name]
    return found.__name__ if isinstance(found, ModuleType) else f"vggfeat.{name}"


def test_the_reference_lists_every_public_name_once():
    listed = re.findall(r"^   (vggfeat\.[\w.]+)$", INDEX.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(map(page, PUBLIC))


def has_example(found):
    """Whether the docstring has an example; that of a member will do for a module."""
    documented = [found]
    if isinstance(found, ModuleType):
        documented += [each for each in vars(found).values() if getattr(each, "__module__", None) == found.__name__]
    return any(">>> " in (each.__doc__ or "") for each in documented)


def test_every_public_name_has_an_example():
    assert {name for name, found in PUBLIC.items() if not has_example(found)} == set()
