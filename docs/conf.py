"""Build the site, offline: `python -m sphinx -W --keep-going docs out/site`. The extra `docs` brings what it needs."""

import re
from importlib import metadata
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

import vggfeat

project = "vggfeat"
release = metadata.version("vggfeat")
html_title = f"vggfeat {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3
default_role = "code"  # docstrings put code between single backticks
autosummary_generate = True
# On many systems `recipe.html` and `Recipe.html` are one file.
_LOWER = [name for name in vggfeat.__all__ if name.islower()]
autosummary_filename_map = {f"vggfeat.{name}": f"vggfeat.{name}-function" for name in _LOWER}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80

# Every reference must have a target, except to other libraries and to types that are not public.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(torch|Tensor|numpy|PIL|rich|os|pathlib|collections|typing|fractions|Path)\b.*"),
    ("py:.*", r"vggfeat\.\w+\..*"),
    ("py:.*", r"[A-Z]\w+"),
]

# Docstrings are plain text with code in backticks. What else reStructuredText would read as markup is escaped.
_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_MARKUP = re.compile(r"\*|\||(?<=\w)_(?!\w)")
_PUBLIC_CLASS = re.compile(r"`((?:{})\b)`".format("|".join(name for name in vggfeat.__all__ if name[0].isupper())))


def _plain(line: str) -> str:
    if line.lstrip().startswith((">>> ", "... ", "* ")):
        return line
    parts = [part if part.startswith("`") else _MARKUP.sub(r"\\\g<0>", part) for part in _CODE.split(line)]
    return _PUBLIC_CLASS.sub(r":py:obj:`~vggfeat.\1`", "".join(parts))


def _read_docstring(_app: object, kind: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Read Args, Returns, Raises and Example as Google's style writes them."""
    plain = [_plain(line) for line in lines]
    # A colon in the docstring of an attribute or a property is none between a type and a description.
    sections = kind not in ("attribute", "property", "data")
    lines[:] = GoogleDocstring(plain, Config(napoleon_use_rtype=False)).lines() if sections else plain


def _read_signature(*arguments: Any) -> tuple[str, str]:
    """Show a dataclass's default factory as `...`, which parses as Python."""
    signature, returned = arguments[-2:]
    return signature and signature.replace("<factory>", "..."), returned


def setup(app: Any) -> None:
    """Sphinx calls this once."""
    app.connect("autodoc-process-docstring", _read_docstring)
    app.connect("autodoc-process-signature", _read_signature)
