"""Every tab in a real browser: Debian's Chromium, driven by Playwright. Nothing may be fetched from other hosts."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggfeat import read_picture, write_picture
from vggfeat.transfer.record import read_record
from vggfeat.ui.limits import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("gradio", reason="Gradio is not installed")

CHROMIUM = Path("/usr/bin/chromium")
ASSETS = Path(__file__).parents[2] / "assets" / "images"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore"),  # Gradio's, of its own dependencies
]


@pytest.fixture(scope="module")
def server():
    from vggfeat.ui.server import serve

    with serve(limits=Limits(megabytes=2, pixels=2_000_000, size=256)) as found:
        yield found
    assert not found.root.exists()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox needs rights that root in a container does not have.
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(server, browser):
    """A page whose every request is checked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    requested = []
    found.on("request", lambda request: requested.append(request.url))
    found.goto(server.url)
    found.wait_for_selector("#paint")
    yield found
    context.close()
    strangers = [url for url in requested if not url.startswith((server.url, "data:", "blob:"))]
    assert strangers == []
    assert len(requested) > 5


def send(page, place, path):
    page.set_input_files(f"{place} input[type=file]", str(path))


def choose(page, steps=4, size=128):
    """A photograph, a style, and a quick recipe."""
    send(page, "#content", ASSETS / "chelsea.jpg")
    page.wait_for_selector("#content img")
    page.get_by_label("Thumbnail 1 of 7").first.click()
    page.wait_for_selector("#style img")
    for label, value in (("Size", size), ("Steps", steps)):
        box = page.locator(f"input[type=number][aria-label*='{label}']").first
        box.fill(str(value))
        box.blur()


def wait_for_text(page, place, words):
    page.wait_for_function(
        "([place, words]) => document.querySelector(place)?.innerText.includes(words)",
        arg=[place, words],
        timeout=120_000,
    )


def fetch(url, body=None):
    """The status and the text that the server answers with; `body` is sent as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (this machine)
    try:
        answer = urllib.request.urlopen(request)  # noqa: S310 (this machine)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read().decode()


def toast(page):
    found = page.wait_for_selector("[data-testid=toast-body]", timeout=60_000).inner_text()
    page.click("[data-testid=toast-close]")
    return found


def test_painting_to_a_file_that_knows_its_recipe(page, tmp_path):
    choose(page)
    page.click("#paint")
    wait_for_text(page, "#status", "Done")
    page.wait_for_selector("#losses .marks", state="attached")
    assert page.locator("#painting img").count() == 2
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "out.png")
    assert download.value.suggested_filename == "chelsea-swirls.png"
    assert read_picture(tmp_path / "out.png").rgb.shape == (1, 3, 85, 128)
    assert read_record(tmp_path / "out.png").recipe.steps == 4
    # The painted picture's recipe can be used again.
    page.get_by_role("button", name="The whole recipe").click()
    page.set_input_files("input[type=file][accept*='.toml']", str(tmp_path / "out.png"))
    page.wait_for_function("document.querySelector('#recipe textarea').value.includes('steps = 4')")


def test_stopping_keeps_the_result(page, tmp_path):
    page.click("#stop")
    wait_for_text(page, "#status", "no run to stop")
    choose(page, steps=300, size=256)
    page.click("#paint")
    wait_for_text(page, "#status", "Step")
    page.click("#stop")
    wait_for_text(page, "#status", "Stopped at step")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "out.png")
    assert read_picture(tmp_path / "out.png").rgb.shape == (1, 3, 170, 256)


def test_a_second_page_waits_its_turn_and_a_reload_ends_a_run(page, server, browser):
    choose(page, steps=300, size=256)
    page.click("#paint")
    wait_for_text(page, "#status", "Step")
    other = browser.new_page()
    other.goto(server.url)
    other.wait_for_selector("#paint")
    choose(other, steps=2, size=64)
    other.click("#paint")
    wait_for_text(other, "#status", "queue")
    assert other.locator("#painting img").count() == 0
    page.reload()
    # The first run ends, and the second page has its turn.
    wait_for_text(other, "#status", "Done")
    assert server.runs.running == 0
    assert page.locator("#painting img").count() == 0
    other.close()


def test_uploads_of_all_kinds(page, server, tmp_path):
    page.get_by_label("Thumbnail 1 of 7").first.click()
    page.wait_for_selector("#style img")
    noise = torch.rand(1, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    write_picture(tmp_path / "tiny.png", noise[..., :3, :3])
    Image.new("L", (2000, 2000)).save(tmp_path / "many.png")
    for name, words in (("broken.jpg", "broken.jpg"), ("tiny.png", "too few"), ("many.png", "the limit is 2000000")):
        send(page, "#content", tmp_path / name)
        time.sleep(1.5)
        page.click("#paint")
        told = toast(page)
        assert words in told
        assert str(server.root.parent) not in told
        page.locator("#content").get_by_role("button", name="Clear").or_(
            page.locator("#content button[aria-label*='emove']")
        ).first.click()
    # A file that is too large never arrives.
    (tmp_path / "large.bmp").write_bytes(b"BM" + bytes(3_000_000))
    send(page, "#content", tmp_path / "large.bmp")
    assert "size" in toast(page).lower()
    page.reload()
    page.wait_for_selector("#paint")
    choose(page, steps=2, size=64)
    page.locator("#content button[aria-label*='emove'], #content button[aria-label='Clear']").first.click()
    write_picture(tmp_path / "clear.png", noise, alpha=noise[:, :1])
    send(page, "#content", tmp_path / "clear.png")
    page.wait_for_selector("#content img")
    page.click("#paint")
    wait_for_text(page, "#status", "Done")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "out.png")
    assert read_picture(tmp_path / "out.png").alpha is not None


def test_exploring(page):
    page.get_by_role("tab", name="Explore").click()
    send(page, "#picture", ASSETS / "coffee.jpg")
    page.wait_for_selector("#channels [aria-label='Thumbnail 256 of 256']", timeout=60_000)
    page.click("#channels [aria-label='Thumbnail 13 of 256']")
    wait_for_text(page, "#channel", "Channel 12 of relu3_3")
    page.get_by_role("radio", name="relu1_1").click()
    page.wait_for_selector("#channels [aria-label='Thumbnail 64 of 64']", timeout=60_000)
    # By keyboard: the next channel.
    page.focus("#channels [aria-label='Thumbnail 7 of 64']")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_text(page, "#channel", "Channel 7 of relu1_1")


def test_comparing(page):
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare")
    assert "there is no first picture" in toast(page)
    send(page, "#first-picture", ASSETS / "chelsea.jpg")
    send(page, "#second-picture", ASSETS / "coffee.jpg")
    page.wait_for_selector("#second-picture img")
    page.wait_for_selector("#first-picture img")
    page.click("#compare")
    wait_for_text(page, "#notes", "resized to match")
    for name in ("LPIPS (VGG)", "DISTS", "PSNR", "SSIM"):
        wait_for_text(page, "#metrics", name)
    page.wait_for_selector("#heat img")
    assert page.locator("#pair img").count() == 2


@pytest.mark.parametrize("width", [1280, 390])
def test_layers_and_every_tab_fit_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    for name in ("Stylize", "Explore", "Compare", "Layers"):
        page.get_by_role("tab", name=name).click()
        time.sleep(0.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    wait_for_text(page, "#layer-table", "conv5_3" if width > 1000 else "conv1_1")


def test_no_file_of_the_server_can_be_read(server, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    for path in ("/etc/passwd", secret, Path(__file__), server.root / "samples" / "china.jpg", "pyproject.toml"):
        for route in ("gradio_api/file=", "file=", "gradio_api/file=../../../../"):
            assert fetch(f"{server.url}{route}{path}")[0] in {403, 404}
    # Nor by naming it as a picture that was sent, nor an address elsewhere.
    config = json.loads(fetch(f"{server.url}config")[1])
    heavy = [each["id"] for each in config["dependencies"] if len(each["inputs"]) == 2 and each["queue"]]
    for path in (str(secret), "http://127.0.0.1:1/picture.png"):
        picture = {"path": path, "url": None, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        body = {"data": [picture, picture], "fn_index": heavy[0], "session_hash": "stranger"}
        if fetch(f"{server.url}gradio_api/queue/join", body)[0] != 200:
            continue
        told = fetch(f"{server.url}gradio_api/queue/data?session_hash=stranger")[1]
        assert '"success":false' in told
        assert "lpips" not in told.lower()


def test_a_password_is_asked_for(browser):
    from vggfeat.ui.server import serve

    with serve(auth="ann:secret") as server:
        for route in ("config", "gradio_api/file=/etc/passwd"):
            assert fetch(f"{server.url}{route}")[0] in {401, 403}
        page = browser.new_page()
        requested = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(server.url)
        page.get_by_label("username").fill("ann")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#paint")
        assert all(url.startswith((server.url, "data:", "blob:")) for url in requested)
        page.close()
