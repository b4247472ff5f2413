"""The page in headless Chromium: pictures, their PNGs, other codecs' pictures, errors, keys, zoom, dark."""

import functools
import http.server
import io
import threading

import numpy as np
import pytest
from PIL import Image

from clic_jax import api
from clic_jax.files import classical, container, streams
from clic_jax.files.container import Header, Tag
from clic_jax.quality import Quality
from tests.conftest import photograph
from tests.experiments import web_site
from tests.experiments.test_report_browser import browser  # noqa: F401
from tests.golden import pinned

NAME, GOLDEN = "clic-tiny", pinned.FOLDER / "44ee9ce2"
SHOWN = "#result:not([hidden]), #error:not([hidden])"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Takes no notice of connections that the browser gives up."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a page with one model."""
    site = web_site.built(tmp_path_factory.mktemp("web"), [NAME])
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_page(browser, address):  # noqa: F811
    """open_page(width, height, ...) -> the page; whatever it logs, throws or asks others for fails the test."""
    contexts, faults = [], []

    def open_(width=1280, height=900, **options):
        context = browser(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        allowed = (address, f"blob:{address}", "data:")
        page.on("request", lambda request: request.url.startswith(allowed) or faults.append(request.url))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def choose(page, name: str, data: bytes) -> str:
    """What the page says of a file: an error, or the facts."""
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    page.locator(SHOWN).first.wait_for(timeout=60000)
    return page.locator("#error:not([hidden]), #facts").first.inner_text()


def saved(page) -> Image.Image:
    """The PNG that the page saves."""
    with page.expect_download() as download:
        page.locator("#save").click()
    with open(download.value.path(), "rb") as file:
        image = Image.open(io.BytesIO(file.read()))
    image.load()
    return image


def distance(image: Image.Image, expected: np.ndarray) -> int:
    found = np.array(image)
    assert found.shape == expected.shape
    return int(np.abs(np.subtract(found, expected, dtype=np.int16)).max())


def test_pictures(open_page):
    """Golden files are shown in full, and what is saved is what clic-jax decodes, to one grey level."""
    page = open_page()
    for file in sorted(GOLDEN.glob("*.clic")):
        told = choose(page, file.name, file.read_bytes())
        picture = api.decompress_image(file, runtime="onnx")
        assert f"{picture.width} x {picture.height} pixels" in told and f"{NAME} (model 44ee9ce2)" in told
        assert f"{file.stat().st_size:,} bytes" in told
        page.wait_for_timeout(50)
        shown = page.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]")
        assert tuple(shown) == picture.size
        png = saved(page)
        assert distance(png, np.array(picture)) <= 1
        assert png.info.get("icc_profile") == picture.info.get("icc_profile")


def packed(name: str, x: np.ndarray, stream: bytes, **more) -> bytes:
    """A .clic file whose picture is that stream."""
    grey, alpha = more.pop("grey", False), more.pop("alpha", None)
    about = {"width": x.shape[1], "height": x.shape[0], "quality": Quality.of(50), "grey": grey}
    header = Header(**about, model_id=None, latents_check=None, classical=name)
    return container.pack(header, stream, {Tag.ALPHA: alpha} if alpha else None)


def test_other_codecs(open_page):
    """AVIF and WebP are the browser's, JPEG XL is refused by name where it has none; grey and alpha are ours."""
    x, page = photograph(70, 90, 4), open_page()
    plane = io.BytesIO()
    alpha = photograph(70, 90, 5)[..., 0]
    Image.fromarray(alpha).save(plane, "PNG")
    avif = streams.of_file("avif", classical.encode("avif", x, 80))
    webp = streams.of_file("webp", classical.encode("webp", x, 80))
    lossless = streams.of_file("webp", classical.encode_exactly(x))
    assert "AVIF" in choose(page, "a.clic", packed("avif", x, avif))
    assert distance(saved(page), classical.decode("avif", avif, 70, 90)) <= 2  # its conversion from YCbCr is another
    assert "WebP" in choose(page, "b.clic", packed("webp", x, webp))
    assert distance(saved(page), classical.decode("webp", webp, 70, 90)) <= 4  # and its upsampling
    choose(page, "c.clic", packed("webp", x, lossless, alpha=plane.getvalue()))
    assert distance(saved(page), np.dstack([x, alpha])) == 0
    choose(page, "d.clic", packed("webp", x, lossless, grey=True))
    assert distance(saved(page), ((x.sum(-1) + 1) // 3).astype(np.uint8)) == 0
    small = np.zeros((256, 256, 3), np.uint8)
    told = choose(page, "e.clic", packed("jpegxl", small, bytes.fromhex("ff0a7f00") + bytes(20)))
    assert "JPEG XL picture, which this browser cannot show" in told
    assert "webp picture cannot be read" in choose(page, "f.clic", packed("webp", x, webp[:10] + bytes(40)))


def test_errors(open_page):
    """One line each, beside nothing else; and the page goes on."""
    page, good = open_page(), (GOLDEN / "colour.clic").read_bytes()
    other = next(file for file in pinned.FOLDER.glob("*/colour.clic") if file.parent != GOLDEN)
    for data, text in (
        (b"GIF89a", "bad.clic: not a .clic file"),
        (b"", "bad.clic: cut short, 0 of at least 4 bytes are there: copy or download the file again"),
        (good[:-4], "bad.clic: cut short"),
        (good[:50] + b"\0" + good[51:], "bad.clic: damaged, for its checksum is wrong"),
        (other.read_bytes(), f"it needs model {other.parent.name}, which this page was built without"),
    ):
        told = choose(page, "bad.clic", data)
        assert text in told and "\n" not in told
        assert not page.locator("#result").is_visible() and not page.locator("#status").is_visible()
    assert "123 x 101 pixels" in choose(page, "good.clic", good) and not page.locator("#error").is_visible()


def test_keyboard_and_zoom(open_page):
    """All of it without a mouse: choose, zoom, save; at 100 % a pixel is a pixel."""
    page = open_page(600, 500)
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(GOLDEN / "tiled.clic"))
    page.locator(SHOWN).first.wait_for(timeout=60000)
    page.set_viewport_size({"width": 300, "height": 500})
    page.wait_for_timeout(50)
    picture = page.locator("#picture")
    assert picture.bounding_box()["width"] <= 300 and page.evaluate("document.documentElement.scrollWidth") == 300
    page.locator("#fit").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("#full").get_attribute("aria-pressed") == "true" and picture.bounding_box()["width"] == 310
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "tiled.png"
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert page.evaluate("document.getElementById('stage').scrollLeft") > 0


def test_drop_and_change_of_mind(open_page):
    """A file that is dropped while another is decoded takes its place."""
    page = open_page()
    files = {file.name: list(file.read_bytes()) for file in (GOLDEN / "tiled.clic", GOLDEN / "grey.clic")}
    page.evaluate(
        """(files) => {
          for (const [name, bytes] of Object.entries(files)) {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
          }
        }""",
        files,
    )
    page.locator(SHOWN).first.wait_for(timeout=60000)
    page.wait_for_timeout(500)
    told = page.locator("#facts").inner_text()
    assert "grey.clic" in told and "70 x 90 pixels, grey" in told


def test_dark(open_page):
    colours = [
        open_page(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert light > 600 and dark < 150
