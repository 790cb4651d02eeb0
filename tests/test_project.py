"""What the project says of itself: dependencies, links, words that must not stand in it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from vggfeat.dumps.export import LIBRARIES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported(folder: str) -> set[str]:
    """The third-party packages that a folder's modules import anywhere, also by `errors.imported`."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "imported":
                named = node.args[0]
                found |= {named.value.split(".")[0]} if isinstance(named, ast.Constant) else set()
    return found - set(sys.stdlib_module_names) - {"vggfeat", "vggfeat_cli", "vggfeat_assets"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", requirement)[0].lower() for requirement in requirements}


def test_what_is_imported_is_required():
    aliases = {
        "PIL": "pillow",
        "lazy_loader": "lazy-loader",
        "pillow_heif": "pillow-heif",
        "sklearn": "scikit-learn",
        "skimage": "scikit-image",
    }
    for_type_checkers = {"typing_extensions"}  # which bring it
    found = (imported("vggfeat") | imported("cli")) - for_type_checkers
    needed = {aliases.get(name, name).lower() for name in found}
    # lpips is found by name, for its heads; the others are extras.
    optional = PROJECT["optional-dependencies"]
    extras = names([row for name in ("metrics", "parquet", "train", "ui", "video") for row in optional[name]])
    required = names(PROJECT["dependencies"]) | extras
    others = names([row for rows in optional.values() for row in rows])
    assert needed <= required | others
    assert needed | {"lpips"} >= required


def test_what_exports_import_is_their_extra():
    optional = PROJECT["optional-dependencies"]
    extra = names([row for name in ("export", "faiss", "parquet") for row in optional[name]])
    packages = {module.partition(".")[0] for module in LIBRARIES.values()}
    assert {{"faiss": "faiss-cpu"}.get(name, name) for name in packages} == extra - {"vggfeat"}


def test_every_requirement_states_a_lower_bound():
    assert all(">=" in requirement for requirement in PROJECT["dependencies"])


PAGES = ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:vggfeat|cli|tests|examples|assets|benchmarks|docs)/[\w./]+)`", text)
    assert all(((ROOT / page).parent / link).exists() for link in links), links
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_readme_is_short_and_has_one_line_for_each_command():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150
    commands = [line.rpartition(" && ")[2] for line in lines if line.startswith("    python3 -m venv .venv && ")]
    assert [command.split()[:2] for command in commands] == [
        [".venv/bin/vggfeat", "stylize"],
        [".venv/bin/python", "-m"],
    ]


def test_the_citation_has_the_versions_and_licence_of_the_project():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert PROJECT["license"].startswith(re.search(r"^license: (.+)$", citation, re.MULTILINE)[1])


def test_packages_are_all_installed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "vggfeat").rglob("__init__.py")}
    assert listed == present | {"vggfeat_cli", "vggfeat_assets"}
