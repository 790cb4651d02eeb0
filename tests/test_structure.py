"""Holds the code to the design: who may import whom, what importing costs, what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vggfeat

PACKAGE = Path(vggfeat.__file__).parent

# Everything may use `errors`; nothing imports the commands.
MAY_IMPORT = {
    "errors": set(),
    "arch": set(),
    "functional": set(),
    "allocation": set(),
    "deep": set(),
    "icc": set(),
    "images": {"deep", "icc"},
    "colours": set(),
    "weights": {"arch"},
    "features": {"arch"},
    "network": {"arch", "weights"},
    "extract": {"arch", "features", "functional", "weights", "tap"},
    "tap": {"arch", "extract", "network", "weights"},
    "losses": {"functional"},
    "criterion": {"extract", "functional", "losses", "images"},
    "similarity": {"criterion", "extract", "functional", "losses", "weights"},
    "perceptual": {"arch", "criterion", "extract", "functional", "losses", "similarity", "weights"},
    "metrics": {"similarity"},
    "dumps": {"arch", "extract", "features", "functional", "images", "weights"},
    "pairs": {"colours", "criterion", "extract", "images", "losses", "perceptual", "similarity", "weights"},
    "plots": set(),
    "animation": {"images"},
    "classification": {"arch", "extract", "functional", "images", "network", "weights"},
    "training": {"arch", "extract", "functional", "images", "network", "plots", "weights"},
    "transfer": {"allocation", "arch", "extract", "losses", "functional", "images", "sources"},
    "sources": {"extract", "images"},
    "view": {"arch", "colours", "extract", "images", "sources"},
    "matching": {"arch", "extract", "functional", "images", "sources"},
    "patches": {"arch", "dumps"},
    "pages": {"arch", "colours", "images", "matching", "patches", "view"},
    "ui": {"arch", "colours", "images", "pairs", "plots", "transfer", "view", "weights"},
}


def imported_modules(path: Path) -> set[str]:
    """The first-level modules of vggfeat that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "vggfeat" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("vggfeat.")}
        found |= {"cli" for name in names if name.split(".")[0] in ("cli", "vggfeat_cli")}
    return found


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_design(path):
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported_modules(path) - {"errors", module} <= MAY_IMPORT[module]


def test_losses_do_not_know_the_extractor():
    assert "extract" not in imported_modules(PACKAGE / "losses.py")


def test_importing_is_cheap():
    code = "import sys, vggfeat; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'PIL', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist_and_are_typed():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = {name for name in dir(vggfeat) if not name.startswith("_")}
    assert public == typed - {None}
    for name in public:
        assert getattr(vggfeat, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'Extractor'"):
        vggfeat.Extractor  # noqa: B018 (the look-up is the test)


def test_public_names_and_modules_do_not_collide():
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & {name for name in dir(vggfeat) if not name.startswith("_")}
