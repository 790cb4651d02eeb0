"""What a user installs works outside the checkout: the wheel, and the wheel that an sdist builds."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A wheel built from an sdist built from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """The `vggfeat` of a new virtual environment, which borrows this one's dependencies but not its vggfeat."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    [wheel] = distributions.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "-q", wheel], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A folder named in a .pth file is searched, but its own .pth files, such as the editable install's, are not read.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "vggfeat"


def test_sizes_and_contents(distributions):
    [wheel], [sdist] = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    assert wheel.stat().st_size < 100e6
    assert sdist.stat().st_size < 100e6
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True
    ).stdout
    tops = {line.split("/")[0] for line in listing.splitlines()[1:]}
    assert {top for top in tops if "dist-info" not in top} == {"vggfeat", "vggfeat_cli", "vggfeat_assets"}
    sources = ("weights/SOURCES.md", "images/SOURCES.md")
    for name in ("NOTICE", "py.typed", "vggfeat/__init__.pyi", *sources, "images/swirls.jpg"):
        assert name in listing


def test_the_command_works_outside_the_checkout(installed, tmp_path):
    for picture in ("chelsea.jpg", "swirls.jpg"):
        shutil.copy(ROOT / "assets" / "images" / picture, tmp_path)
    run = [installed, "stylize", "chelsea.jpg", "swirls.jpg", "--size", "64", "--steps", "2", "-o", "out.png"]
    subprocess.run(run, cwd=tmp_path, check=True)
    assert (tmp_path / "out.png").stat().st_size > 1000
    verified = subprocess.run(
        [installed, "weights", "verify"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert verified.stdout.count("bundled, intact") == 3


def test_nothing_of_the_checkout_is_used(installed, tmp_path):
    code = "import vggfeat, vggfeat_cli, vggfeat_assets as a; print(vggfeat.__file__, vggfeat_cli.__file__, a.__file__)"
    python = installed.with_name("python")
    found = subprocess.run([python, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert str(ROOT) not in found
