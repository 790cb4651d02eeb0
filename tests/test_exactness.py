"""The pages `exact` and `reproduces` say what docs/exactness.py measures."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "exactness.py"))


def rows(page):
    """The cells of a page's table, without its head."""
    text = (DOCS / page).read_text("utf-8").split("<!-- table -->\n")[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_the_page_has_every_measurement():
    listed = [(quantity, oracle, allowed) for quantity, oracle, _, allowed in rows("exact.md")]
    assert listed == [(one.quantity, one.oracle, f"{one.allowed:.0e}") for one in SCRIPT["EXACT"]]
    assert all(float(difference) <= float(allowed) for _, _, difference, allowed in rows("exact.md"))


@pytest.mark.parametrize("one", SCRIPT["EXACT"], ids=lambda one: re.sub(r"\W+", "-", one.quantity))
def test_differences_are_as_small_as_the_page_says(one):
    assert one.difference() <= one.allowed


def test_the_page_has_every_published_figure():
    listed = [tuple(row[:3]) for row in rows("reproduces.md")]
    assert listed == [(one.figure, one.source, one.published) for one in SCRIPT["REPRODUCED"]]


@pytest.mark.parametrize("one", SCRIPT["REPRODUCED"], ids=lambda one: re.sub(r"\W+", "-", one.figure))
def test_published_figures_are_reproduced(one):
    ours = one.ours()
    assert ours == pytest.approx(float(one.published), rel=3e-6, abs=0.5 * 10**-one.decimals)
    assert {row[0]: float(row[3]) for row in rows("reproduces.md")}[one.figure] == pytest.approx(ours, rel=1e-3)
