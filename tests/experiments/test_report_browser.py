"""The page in headless Chromium: pictures load, the line divides the very pixels, zoom, pan, keys, touch, a phone."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.report import page as pages
from experiments.report import results, savings, viewers
from experiments.report.pictures import Picture, Version
from tests.conftest import photograph
from tests.measured import write_results

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, to drive a browser")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-color-profile=srgb"
).split()
SIZE = (300, 500)  # of the pictures, height and width
VERSIONS = {"original": 0, "ours": 1, "jpeg": 2, "avif": 3}  # and the seeds of what they show


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page with two pictures, whose versions are quite different photographs, so that none is taken for another."""
    folder = tmp_path_factory.mktemp("browser")
    write_results(folder, "mine", 0, model_id="12345678")
    write_results(folder, "jpeg", 4)
    write_results(folder, "avif", -4)
    ours, others = results.choose(results.read(folder), None)
    comparisons = [results.compare(ours, other) for other in others]
    shown = [
        Picture(name, "made up", [Version(k, k.upper(), pixels(k, i), "", 9000, 30.0) for k in VERSIONS])
        for i, name in enumerate(["a.png", "b<&\"'.png"])
    ]
    html = pages.page(comparisons, ours, savings.Volumes(34.0, 1e6), True, viewers.viewers(shown, 20))
    (folder / "page.html").write_text(html)
    return folder / "page.html"


def pixels(version: str, number: int = 0) -> np.ndarray:
    return photograph(*SIZE, 10 * number + VERSIONS[version])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *BROWSERS))), None)
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium, or CHROMIUM=PATH")
    with playwright.sync_playwright() as driver:
        folder = str(tmp_path_factory.mktemp("profile"))  # a fresh one for each context
        yield lambda **options: driver.chromium.launch_persistent_context(
            f"{folder}/{os.urandom(4).hex()}", executable_path=path, args=FLAGS, **options
        )


@pytest.fixture
def open_page(browser, page_file):
    """open_page(width, height, ...) -> the page; whatever it logs, throws or asks the network for fails the test."""
    contexts, faults = [], []

    def open_(width=1280, height=900, **options):
        context = browser(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        allowed = ("data:", page_file.as_uri())
        page.on("request", lambda request: request.url.startswith(allowed) or faults.append(request.url))
        page.goto(page_file.as_uri())
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def shot(page, number=0) -> np.ndarray:
    """The stage of a viewer as it is on the screen, uint8 [H, W, 3]."""
    stage = page.locator(".stage").nth(number)
    stage.scroll_into_view_if_needed()
    box = {key: round(value) for key, value in stage.bounding_box().items()}  # the browser rounds so as well
    screen = np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return screen[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]


def same(screen, expected, rows, columns):
    """Whether the region is the expected pixels, up to a rounding of colours."""
    difference = np.abs(screen[rows, columns].astype(int) - expected[rows, columns].astype(int))
    return difference.max() <= 1


BELOW = slice(60, 120)  # rows without the names above and the grip in the middle


def test_images_load(open_page):
    page = open_page()
    sizes = page.evaluate("[...document.images].map((image) => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [list(SIZE[::-1])] * 2 * len(VERSIONS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_line_divides_the_very_pixels(open_page):
    """Ours left of the line and JPEG right of it, before and after it is dragged."""
    page = open_page()
    left, right = pixels("ours"), pixels("jpeg")
    screen = shot(page)
    assert screen.shape == (*SIZE, 3)
    assert same(screen, left, BELOW, slice(0, 220)) and same(screen, right, BELOW, slice(280, 500))
    box = page.locator(".stage").first.bounding_box()
    page.mouse.move(box["x"] + 250, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 60, steps=4)
    page.mouse.up()
    screen = shot(page)
    assert same(screen, left, BELOW, slice(0, 70)) and same(screen, right, BELOW, slice(130, 500))
    assert page.locator(".slide").first.input_value() == "20"


def test_slider_by_keyboard(open_page):
    page = open_page()
    slide = page.locator(".slide").first
    slide.focus()
    page.keyboard.press("End")
    assert same(shot(page), pixels("ours"), BELOW, slice(0, 470))
    page.keyboard.press("Home")
    assert same(shot(page), pixels("jpeg"), BELOW, slice(30, 500))
    page.keyboard.press("ArrowRight")
    assert slide.input_value() == "1"


def test_choice_of_versions(open_page):
    """Each viewer its own, with the keyboard too."""
    page = open_page()
    page.get_by_label("AVIF on the right").nth(1).check()
    page.get_by_label("ORIGINAL on the left").nth(1).focus()
    page.keyboard.press("Space")
    screen = shot(page, 1)
    assert same(screen, pixels("original", 1), BELOW, slice(0, 220))
    assert same(screen, pixels("avif", 1), BELOW, slice(280, 500))
    assert page.locator(".ends").all_inner_texts() == [
        "OURS, 9,000 B",
        "JPEG, 9,000 B",
        "ORIGINAL, 9,000 B",
        "AVIF, 9,000 B",
    ]
    assert same(shot(page), pixels("ours"), BELOW, slice(0, 220))


def test_zoom_and_pan(open_page):
    """At 2x pixels are repeated about the middle; the picture follows the mouse and the arrow keys, to its edges."""
    page = open_page()
    stage = page.locator(".stage").first
    page.get_by_label("Zoom 2 times").first.click()
    left = pixels("ours").repeat(2, 0).repeat(2, 1)
    assert same(shot(page), left[150:, 250:], BELOW, slice(0, 220))
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 230, steps=3)
    page.mouse.up()
    assert same(shot(page), left[170:, 220:], BELOW, slice(0, 220))
    stage.focus()
    page.keyboard.press("ArrowRight")
    assert same(shot(page), left[170:, 260:], BELOW, slice(0, 220))
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert same(shot(page), left[170:, :], BELOW, slice(0, 220))
    page.keyboard.press("+")
    assert page.get_by_label("Zoom 4 times").first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert same(shot(page), pixels("ours"), BELOW, slice(0, 220))


def test_phone(open_page):
    """360 pixels wide: nothing sticks out, the line follows a finger, and the picture is cut, not shrunk."""
    page = open_page(360, 740, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".narrow .chart").first.is_visible() and not page.locator(".wide .chart").first.is_visible()
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    width = round(box["width"])
    assert width < 360 and box["height"] == SIZE[0]
    first = (SIZE[1] - width) // 2
    assert same(shot(page), pixels("ours")[:, first:], BELOW, slice(0, width // 2 - 30))
    session = page.context.new_cdp_session(page)
    x, y = box["x"] + width / 2, box["y"] + 30
    for kind, points in (("Start", [(x, y)]), ("Move", [(x - 40, y)]), ("Move", [(x - 100, y)]), ("End", [])):
        event = {"type": f"touch{kind}", "touchPoints": [{"x": px, "y": py} for px, py in points]}
        session.send("Input.dispatchTouchEvent", event)
    split = width / 2 - 100
    assert page.locator(".slide").first.input_value() == str(round(100 * split / width))
    screen = shot(page)
    assert same(screen, pixels("jpeg")[:, first:], BELOW, slice(int(split) + 30, width))


def test_dark(open_page):
    colours = [
        open_page(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert light > 600 and dark < 150


def test_every_control_has_a_name(open_page):
    page = open_page()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, button, .stage')].filter((e) => !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0 and page.locator("input, button").count() > 10


def test_without_script(open_page):
    """All versions stand below each other, and no dead control is shown."""
    page = open_page(java_script_enabled=False)
    images = page.locator(".stage img").all()
    assert len(images) == 2 * len(VERSIONS) and all(image.is_visible() for image in images)
    assert not page.locator(".slide").first.is_visible() and not page.locator(".choice").first.is_visible()
