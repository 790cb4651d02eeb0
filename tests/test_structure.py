"""Holds the code to the design: who may import whom, what importing costs, what is public."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import vggfeat

PACKAGE = Path(vggfeat.__file__).parent

# Everything may use `errors` and `files`; nothing imports the commands.
_BASE = {"networks", "pictures"}
_CORE = {*_BASE, "features", "losses"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "networks": set(),
    "pictures": set(),
    "features": _BASE,
    "losses": {*_BASE, "features"},
    "transfer": {*_CORE, "training"},
    "dumps": _CORE,
    "explore": {*_CORE, "dumps"},
    "pairs": {*_CORE, "explore"},
    "training": {*_CORE, "explore"},
    "ui": {*_CORE, "dumps", "explore", "pairs", "training", "transfer"},
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
    assert imported_modules(path) - {"errors", "files", module} <= MAY_IMPORT[module]


def test_every_subject_has_a_folder():
    kept = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py") and not path.name.startswith("_")}
    assert kept == set(MAY_IMPORT)


@cache
def imports():
    """{module: the modules of vggfeat that it imports, anywhere in its text}."""
    named = {path: ".".join(("vggfeat", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES}
    named = {path: name.removesuffix(".__init__") for path, name in named.items()}
    found = {name: set() for name in named.values()}
    for path, name in named.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                submodules = {f"{node.module}.{alias.name}" for alias in node.names} & found.keys()
                found[name] |= submodules or {node.module} & found.keys()
    return found


def test_no_module_imports_itself_through_others():
    graph, done = imports(), set()
    assert "vggfeat.features.steps" in graph["vggfeat.features.extractor"]

    def visit(module, way):
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for other in graph[module]:
                visit(other, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])


# These bring a network; every other module of losses reads features.
_BRING_A_NETWORK = {"accumulated", "criterion", "functional", "onnx", "perceptual", "signature", "similarity"} | {
    "steadiness"
}
_OVER_FEATURES = {path.stem for path in (PACKAGE / "losses").glob("*.py")} - _BRING_A_NETWORK


@pytest.mark.parametrize("name", sorted(_OVER_FEATURES - {"__init__"}))
def test_losses_over_features_do_not_know_the_extractor(name):
    assert not {"vggfeat.features.extractor", "vggfeat.features.trunk"} & imports()[f"vggfeat.losses.{name}"]


def test_importing_is_cheap():
    code = "import sys, vggfeat; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'PIL', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist_and_are_typed():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = {name for name in dir(vggfeat) if not name.startswith("_")}
    assert public == typed - {None}
    for name in public:
        assert getattr(vggfeat, name).__doc__, name
    with pytest.raises(AttributeError, match="No vggfeat attribute Extractor"):
        vggfeat.Extractor  # noqa: B018 (the look-up is the test)


def test_public_names_and_modules_do_not_collide():
    folders = {path.stem for path in PACKAGE.iterdir()}
    assert not folders & {name for name in dir(vggfeat) if not name.startswith("_")}


def test_vggfeat_has_at_most_twelve_entries():
    assert len([path for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"]) <= 12


CODE = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "cli").rglob("*.py")]


def test_no_two_classes_share_a_name():
    classes = Counter(
        node.name
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in classes.items() if count > 1} == set()


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_no_private_name_is_imported_from_another_folder(path):
    folder = ".".join(path.relative_to(PACKAGE.parent).parent.parts).replace("cli", "vggfeat_cli")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("vggfeat", "vggfeat_cli"):
            imported = [*node.module.split("."), *(alias.name for alias in node.names)]
            private = [name for name in imported if name.startswith("_")]
            assert not private or node.module.startswith(folder), f"{node.module}: {private}"
