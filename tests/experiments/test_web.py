"""The page's modules in Node: golden files to the same symbols and pictures, damage as in Python, parts and oracles.

Needs Node and `make web`.
"""

import io
import json
import random
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from clic_jax import api
from clic_jax.checkpoints import installed
from clic_jax.coding import fixedpoint, range_coder, tables, tiles
from clic_jax.errors import UserError
from clic_jax.files import classical, container, streams
from clic_jax.files.container import Header
from clic_jax.files.pictures import ImageWarning
from clic_jax.quality import Quality
from experiments.paths import ROOT
from experiments.web import __main__ as command
from experiments.web import engine, model
from tests.conftest import photograph
from tests.experiments import web_site
from tests.experiments.web_site import raw, text
from tests.golden import pinned

GOLDEN = sorted(pinned.FOLDER.glob("*/*.clic"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page with all models of the package."""
    return web_site.built(tmp_path_factory.mktemp("web"), list(installed.installed()))


@pytest.fixture(scope="module")
def node(site):
    """(tasks) -> what they give in Node."""
    process = web_site.Node(site)
    yield process
    process.close()


def unlike(picture: Image.Image, png: bytes) -> int:
    """How many grey levels the picture of a PNG differs by; metadata and transparency must be the same."""
    found = Image.open(io.BytesIO(png))
    found.load()
    assert (found.mode, found.size) == (picture.mode, picture.size)
    assert found.info.get("icc_profile") == picture.info.get("icc_profile")
    assert dict(found.getexif()) == dict(picture.getexif())
    assert found.mode[-1] != "A" or found.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    return int(np.abs(np.subtract(found, picture, dtype=np.int16)).max())


def test_golden_files(node, tmp_path):
    """All files of all released models: the checksum of the latents agrees, and pixels are within one grey level.

    Of the smallest model, those that are decoded now, and of the others the sample that is kept.
    """
    tile = {file: pinned.SMALLEST_TILE if file.stem == pinned.TILED else tiles.DEFAULT for file in GOLDEN}
    tasks = [
        ("decode", {"data": text(file.read_bytes()), "png": str(tmp_path / str(i)), "tile": tile[file]})
        for i, file in enumerate(GOLDEN)
    ]
    found = node(tasks)
    assert len(found) == len(GOLDEN) >= 22
    for i, (file, row) in enumerate(zip(GOLDEN, found)):
        assert row.get("header", row)["modelId"] == file.parent.name
        png = (tmp_path / str(i)).read_bytes()
        if row["header"]["modelName"] == "clic-tiny":
            assert unlike(api.decompress_image(file, runtime="onnx", tile=tile[file]), png) <= 1, file
        kept, shown = np.load(file.with_suffix(".npz"))["sample"], np.array(Image.open(io.BytesIO(png)))
        assert np.abs(np.subtract(pinned.sample(shown), kept, dtype=np.int16)).max() <= 1, file
    assert any(row["header"]["filtered"] for row in found) and any(row["header"]["grey"] for row in found)


def kind_of(data: bytes) -> str | None:
    """The name of what Python raises for a file, or None."""
    try:
        api.decompress(data, runtime="onnx", max_pixels=2**26)
    except UserError as error:
        return type(error).__name__
    return None


def repaired(data: bytes) -> bytes:
    """With the right checksum at the end."""
    return data[:-3] + container.checksum(data[:-3]).to_bytes(3, "little")


def test_damaged_files(node):
    """Every one-byte change and every shorter file is refused, in one line; as Python, also where the checksum fits."""
    data = (pinned.FOLDER / "44ee9ce2" / "one_pixel.clic").read_bytes()
    changed = [data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(1, 256)]
    short = [data[:i] for i in range(len(data))] + [data + b"\0"]
    for row in node([("unpack", {"data": text(one)}) for one in changed + short]):
        assert row["kind"] in ("NotClic", "UnknownVersion", "Truncated", "Damaged", "TrailingBytes")
        assert "\n" not in row["text"]
    chance = random.Random(0)
    fits = [repaired(one) for one in chance.sample(changed, 30) + changed[3 * 255 : 4 * 255 : 32]]
    found = node([("decode", {"data": text(one)}) for one in fits])
    kinds = [row.get("kind") for row in found]
    assert kinds == [kind_of(one) for one in fits]
    assert {"Desync", "Damaged", "ModelMismatch", "UnknownVersion"} <= set(kinds)


def test_errors_say_what_to_do(node, tmp_path):
    """The very words of Python, where these suit; and how a model that is missing is built in."""
    data = (pinned.FOLDER / "44ee9ce2" / "colour.clic").read_bytes()
    bad = [data[:40], data + b"xx", data[:99] + bytes([data[99] ^ 1]) + data[100:], b"\x89PNG"]
    for one, row in zip(bad, node([("decode", {"data": text(one)}) for one in bad])):
        with pytest.raises(UserError) as refused:
            container.unpack(one)
        assert row["text"] == str(refused.value).removesuffix(" (if it is a picture, compress it first)")
    small = web_site.Node(web_site.built(tmp_path, ["clic-tiny"]))
    shipped = next(row for row in installed.released() if row["name"] != "clic-tiny")
    ids = [shipped["id"], "51f3b91f", "00000000"]
    files = [repaired(data[:4] + bytes.fromhex(one) + data[8:]) for one in ids]
    missing, retired, unknown = (row["text"] for row in small([("decode", {"data": text(f)}) for f in files]))
    small.close()
    assert f"python -m experiments.web --model clic-tiny {shipped['name']} --out site builds it in" in missing
    assert "is retired: decode with clic_jax as of its commit 5fc098a" in retired
    assert "--model clic-tiny FOLDER --out site builds one in" in unknown


def test_range_decoder(node):
    """Symbols of random tables, rare and common, escaped and not, as constriction has coded them."""
    random = np.random.default_rng(0)
    tasks, expected = [], []
    for _ in range(30):
        encoder, calls = range_coder.Encoder(), []
        for _ in range(3):
            made = [
                tables.pmf_table(
                    random.dirichlet(np.full(n, 10.0 ** random.uniform(-2, 1))), int(random.integers(-9, 9))
                )
                for n in random.integers(1, 400, 5)
            ]
            index = random.integers(0, 5, random.integers(0, 300))
            wide = 10.0 ** random.integers(0, 5)
            symbols = np.clip(np.rint(random.normal(0, wide, index.size)), -32768, 32767).astype(np.int32)
            encoder.encode(symbols, index, made)
            edges = [{"first": t.first, "edges": [0, *np.cumsum(t.freq).tolist()]} for t in made]
            calls.append({"index": index.tolist(), "tables": edges})
            expected.append(symbols.tolist())
        tasks.append(("symbols", {"stream": text(encoder.finish()), "calls": calls}))
    assert sum(node(tasks), []) == expected


def test_streams_that_no_encoder_writes(node):
    """Any bytes decode to some symbols, as in Python, or are refused where Python refuses."""
    random = np.random.default_rng(1)
    table = tables.pmf_table(random.dirichlet(np.ones(50)), -20)
    given = [random.bytes(int(n)) for n in random.integers(0, 60, 40)] + [b"\xff" * 40, b"\xff" * 7, b""]
    call = {"index": [0] * 100, "tables": [{"first": table.first, "edges": [0, *np.cumsum(table.freq).tolist()]}]}
    found = node([("symbols", {"stream": text(data), "calls": [call]}) for data in given])
    for data, row in zip(given, found):
        try:
            assert row == [range_coder.Decoder(data).decode(np.zeros(100, np.int64), [table]).tolist()]
        except range_coder.StreamError:
            assert row["kind"] == "StreamError"
    assert sum("kind" in row for row in found) >= 2


@pytest.mark.parametrize("size, inputs, outputs", [(1, 24, 3), (3, 5, 8), (5, 16, 2)])
def test_convolution(node, size, inputs, outputs):
    """A layer at the edges of what it may hold, as NumPy computes it; at all positions and at some."""
    random = np.random.default_rng(size)
    kernel = random.standard_normal((size, size, inputs, outputs)) * 10.0 ** random.uniform(-3, 3, outputs)
    kernel[0, 0] = 0 if size > 1 else kernel[0, 0]
    layer = fixedpoint.integer_layer(kernel, random.standard_normal(outputs), 2.0**-4, 3)
    x = random.choice([-(2**20), -8128, -1, 0, 1, 8128, 2**20], (1, 7, 9, inputs)).astype(np.int32)
    task = {"layer": model.layer(layer, lambda array: array.ravel().tolist()), "x": x.ravel().tolist(), "h": 7, "w": 9}
    where = random.permutation(63)[:30].tolist()
    everywhere, some = node([("convolution", task), ("convolution", task | {"where": where})])
    expected = fixedpoint.convolve(layer, x)[0].reshape(63, outputs)
    assert np.array_equal(np.reshape(everywhere, expected.shape), expected) and np.abs(expected).max() > 2**12
    assert np.array_equal(np.reshape(some, (30, outputs)), expected[where])


def test_tiles(node):
    cases = [(64 * n, 64 * t) for n in (1, 4, 5, 16, 17, 31, 40, 97) for t in (4, 5, 16)]
    for case, found in zip(cases, node([("spans", {"size": s, "tile": t}) for s, t in cases])):
        expected = tiles.spans(*case)
        assert [(row["start"], row["stop"]) for row in found] == [span[:2] for span in expected]
        for row, span in zip(found, expected):
            assert np.allclose(np.frombuffer(raw(row["weight"]), np.float32), span.weight, atol=1e-6)


def stream_of(name: str, x: np.ndarray) -> bytes:
    """A stream of x as a .clic file holds it."""
    return streams.of_file(name, classical.encode(name, x, 60))


def test_classical_streams(node):
    """The file around a stream and its size are those of Python, damaged or not."""
    x = photograph(37, 61)
    lossless = streams.of_file("webp", classical.encode_exactly(x))
    whole = [("avif", stream_of("avif", x)), ("webp", stream_of("webp", x)), ("webp", lossless)]
    whole += [("jpegxl", bytes.fromhex(start)) for start in ("ff0a8a1f", "ff0af81f9012", "ff0a00")]
    found = node([("file", {"name": n, "stream": text(s), "width": 61, "height": 37}) for n, s in whole])
    assert [raw(one) for one in found] == [streams.to_file(name, stream, 61, 37) for name, stream in whole]
    cases = [(name, stream[:i] + bytes([stream[i] ^ 85]) + stream[i + 1 :]) for name, stream in whole for i in range(3)]
    cases += whole + [(name, stream[:cut]) for name, stream in whole for cut in (0, 1, 3, 5, 9)]
    sizes = node([("size", {"name": name, "stream": text(stream)}) for name, stream in cases])
    assert [found and tuple(found) for found in sizes] == [streams.size_of(*case) for case in cases]
    header = Header(width=61, height=36, quality=Quality.of(50), model_id=None, latents_check=None, classical="avif")
    (row,) = node([("unpack", {"data": text(container.pack(header, whole[0][1]))})])
    assert row["kind"] == "Damaged" and "its avif picture is none of 61 x 36 pixels" in row["text"]


def test_png(node):
    """What is written, Pillow reads; what Pillow writes is read, whatever its filters; damage is refused."""
    rng = np.random.default_rng(3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    pictures = [photograph(19, 23)[..., :c] for c in (1, 3)] + [
        rng.integers(0, 256, (5, 1, c), np.uint8) for c in (2, 4)
    ]
    more = {"icc": text(zlib.compress(profile)), "exif": text(exif.tobytes())}
    tasks = [
        ("png", {"samples": text(x.tobytes()), "width": x.shape[1], "height": x.shape[0]} | more) for x in pictures
    ]
    for x, png in zip(pictures, node(tasks)):
        image = Image.open(io.BytesIO(raw(png)))
        assert np.array_equal(np.array(image).reshape(x.shape), x)
        assert image.info["icc_profile"] == profile and image.getexif()[0x010E] == "a picture"
    planes = [photograph(40, 33, seed)[..., 0] // div for seed in range(3) for div in (1, 60)]
    planes += [rng.integers(0, 256, (40, 33), np.uint8)]
    files = []
    for plane in planes:
        file = io.BytesIO()
        Image.fromarray(plane).save(file, "PNG", optimize=True)
        files.append(file.getvalue())
    size = {"width": 33, "height": 40}
    assert [raw(f) for f in node([("grey", {"png": text(f)} | size) for f in files])] == [
        plane.tobytes() for plane in planes
    ]
    bad = [files[0][:i] + bytes([files[0][i] ^ 1]) + files[0][i + 1 :] for i in range(0, len(files[0]) - 12, 7)]
    bad += [files[0][:i] for i in (0, 8, 30, len(files[0]) - 1)]
    assert set(node([("grey", {"png": text(f)} | size) for f in bad])) == {None}


def test_refusals(tmp_path):
    """What the command does not build on, or over, is told in one line."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("precious")
    run = [sys.executable, "-m", "experiments.web", "--out", str(tmp_path / "mine")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "holds something else than a page" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]
    with pytest.raises(UserError, match="is not exported: clic-jax export"):
        model.files(tmp_path / "mine")
    (tmp_path / "other.tgz").write_text("no package")
    with pytest.raises(UserError, match="is no package onnxruntime-web"):
        engine.files(tmp_path, tmp_path / "other.tgz")
    with pytest.raises(UserError, match="npm, which fetches onnxruntime-web"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        engine.files(tmp_path)


def test_what_the_page_names_is_in_it(site):
    """Each file that a model names has the hash that it names, and the list says which models there are."""
    listed = json.loads((site / command.MODELS).read_text())
    assert {row["name"]: row["id"] for row in listed["built"]} == installed.installed()
    assert listed["released"] == installed.released()
    for row in listed["built"]:
        folder = site / "models" / row["id"]
        assert model.integrity((folder / "model.json").read_bytes()) == row["integrity"]
        names = json.loads((folder / "model.json").read_text())["integrity"]
        assert {path.name for path in folder.iterdir()} == {*names, "model.json"}
        assert all(model.integrity((folder / name).read_bytes()) == found for name, found in names.items())


@pytest.mark.slow
def test_new_files(node, tmp_path):
    """Any size, quality and model, photographs and noise, several tiles: the checksum agrees, and the pixels."""
    random = np.random.default_rng(5)
    for seed, name in enumerate(8 * list(installed.installed())):
        height, width = random.integers(1, 330, 2)
        x = photograph(height, width, seed) if seed % 6 else random.integers(0, 256, (height, width, 3), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)  # that noise is no photograph
            data = api.compress(x, quality=round(random.uniform(1, 100), 2), model=name, runtime="onnx")
        (row,) = node([("decode", {"data": text(data), "png": str(tmp_path / "png"), "tile": 256})])
        assert row["header"]["modelName"] == name
        assert unlike(api.decompress_image(data, runtime="onnx", tile=256), (tmp_path / "png").read_bytes()) <= 1
