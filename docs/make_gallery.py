"""Make every picture of the gallery, each by the command beneath it there.

    python docs/make_gallery.py             # all of them, some minutes on two cores
    python docs/make_gallery.py china match # those whose name has one of these words

The page's picture needs the extra `ui`, Playwright and Chromium; without them it is left as it is.
"""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from vggfeat_cli import main

DOCS = Path(__file__).parent
IMAGES = DOCS.parent / "assets" / "images"
MOST_BYTES = 150_000

# {picture of docs/: its command, which writes `out.png` in a folder where the pictures of assets/images lie}.
COMMANDS = {
    "china-stained_glass": "stylize china.jpg stained_glass.jpg -o out.png",
    "chelsea-swirls": "stylize chelsea.jpg swirls.jpg -o out.png",
    "coffee-mosaic": "stylize coffee.jpg mosaic.jpg -o out.png",
    "chelsea-show": "show chelsea.jpg --layer relu1_2,relu3_3,relu5_3 --top 12 -o out.png",
    "dump-patches": "show --dump features --layer relu4_3 --channel 12 -o out.png",
    "china-match": "match china.jpg china-aside.jpg --limit 120 -o out.png",
    "chelsea-distort": "distort chelsea.jpg --layer relu3_3 --steps 40 -o out.png",
    "chelsea-differentiation": "distort chelsea.jpg --metric lpips-vgg --hold mse --steps 40 -o out.png",
    "chelsea-heat": "compare chelsea.jpg chelsea-quality-8.jpg --metric lpips-vgg --heatmap .",
}

# What has to be there before a command runs.
BEFORE = {"dump-patches": "dump photos --layers relu3_3,relu4_3 --reduce mean --statistics -o features"}


def prepare(folder: Path) -> None:
    """Put into `folder` what the commands read."""
    photos = folder / "photos"
    photos.mkdir()
    for file in IMAGES.glob("*.jpg"):
        (folder / file.name).write_bytes(file.read_bytes())
        (photos / file.name).write_bytes(file.read_bytes())
    with Image.open(folder / "chelsea.jpg") as cat:
        cat.save(folder / "chelsea-quality-8.jpg", quality=8)
    with Image.open(folder / "china.jpg") as china:
        width, height = china.size
        corners = (40, 10, 10, height - 5, width - 60, height - 40, width - 30, 40)
        aside = china.transform(china.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
        aside.point(lambda value: value * 0.75).save(folder / "china-aside.jpg", quality=92)


def run(command: str) -> None:
    """Run `vggfeat` with the words of `command`."""
    print(f"$ vggfeat {command}")
    main(shlex.split(command), standalone_mode=False)


def save(picture: Image.Image, name: str, width: int = 1100) -> None:
    """Write a JPEG of at most `MOST_BYTES`, no wider than `width`."""
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    target = DOCS / f"{name}.jpg"
    for quality in range(92, 40, -4):
        picture.convert("RGB").save(target, quality=quality, optimize=True, progressive=True)
        if target.stat().st_size <= MOST_BYTES:
            break
    print(f"{target.name}: {picture.width} x {picture.height}, {target.stat().st_size // 1000} kB")


def make(name: str) -> None:
    """Run the command of a picture in a folder of its own, and keep what it wrote."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            prepare(Path(folder))
            if name in BEFORE:
                run(BEFORE[name])
            run(COMMANDS[name])
            file = Path("out.png") if Path("out.png").exists() else next(Path().glob("*.png"))
            with Image.open(file) as picture:
                save(picture, name)
        finally:
            os.chdir(before)


def page() -> None:
    """The web page after a run of the recipe `preview`."""
    from playwright.sync_api import sync_playwright

    from vggfeat.ui.server import serve

    with serve() as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        found = browser.new_page(viewport={"width": 1280, "height": 960})
        found.goto(server.url)
        found.set_input_files("#content input[type=file]", str(IMAGES / "china.jpg"))
        found.click("#style-samples button >> nth=1")
        found.wait_for_selector("#style img")
        found.get_by_label("Recipe", exact=True).click()
        found.get_by_role("option", name="preview").click()
        time.sleep(2)
        found.click("#paint")
        found.locator("#status", has_text="Done").wait_for(timeout=300_000)
        found.mouse.move(0, 0)
        time.sleep(1)
        shot = Path(tempfile.gettempdir(), f"vggfeat-page-{time.time_ns()}.png")
        found.screenshot(path=shot)
        with Image.open(shot) as picture:
            save(picture, "ui")
        shot.unlink()
        browser.close()


def chosen(words: list[str]) -> dict[str, Callable[[], None]]:
    """The pictures whose names have one of the words; all without words."""
    makers: dict[str, Callable[[], None]] = {name: lambda name=name: make(name) for name in COMMANDS}
    makers["ui"] = page
    return {name: maker for name, maker in makers.items() if not words or any(word in name for word in words)}


if __name__ == "__main__":
    for title, maker in chosen(sys.argv[1:]).items():
        try:
            maker()
        except ImportError as error:
            print(f"{title}: left as it is, {error}")
