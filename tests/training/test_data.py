"""Training data. Pixel (row, column) of photograph n is (n, row, column), so that a crop tells where it came from."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from clic_jax.files import images
from clic_jax.training import data, sources, streaming

SHAPES = [(40, 52), (33, 32), (64, 35), (50, 50), (32, 80)]
SIZE = 32


def photograph(n, height, width):
    return np.stack([np.full((height, width), n), *np.mgrid[:height, :width]], axis=-1).astype(np.uint8)


PHOTOGRAPHS = [photograph(n, *shape) for n, shape in enumerate(SHAPES)]


def save_photographs(folder):
    (folder / "sub").mkdir(parents=True)
    for n, pixels in enumerate(PHOTOGRAPHS):
        Image.fromarray(pixels).save(folder / ("sub" if n == 4 else "") / f"{n}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return save_photographs(tmp_path / "photos")


def spoil(folder):
    """Add an image too small, a file that is no image, and an image whose header is good but whose body is cut."""
    Image.fromarray(photograph(200, SIZE - 1, 90)).save(folder / "0a_small.png")
    (folder / "1a_text.jpg").write_text("not an image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "2a_cut.png")
    (folder / "2a_cut.png").write_bytes((folder / "2a_cut.png").read_bytes()[:2000])


def assert_is_a_crop(crop, size=SIZE):
    """The crop is the naive crop, mirrored or not, at the position that its own pixels name."""
    n, row, first = map(int, crop[0, 0])
    mirrored = first > crop[0, -1, 2]
    column = int(crop[0, -1, 2]) if mirrored else first
    naive = PHOTOGRAPHS[n][row : row + size, column : column + size]
    np.testing.assert_array_equal(crop, naive[:, ::-1] if mirrored else naive)
    return n, row, column, mirrored


def batches(spec, count, **options):
    options = {"batch": 4, "size": SIZE, "seed": 3, "start_step": 0, **options}
    return np.array(list(itertools.islice(streaming.stream_crops(spec, **options), count)))


# load_photos


def test_load_photos_holds_every_photograph_in_order(folder):
    photos = data.load_photos(f"folder:{folder}", min_size=SIZE, workers=2)
    assert photos.names == ("0.png", "1.png", "2.png", "3.png", "sub/4.png") and len(photos) == 5
    assert photos.total == sum(height * width for height, width in SHAPES)
    assert photos.pixels.dtype == np.uint8 and photos.offsets.dtype == np.int32
    for n, expected in enumerate(PHOTOGRAPHS):
        h, w = photos.heights[n], photos.widths[n]
        np.testing.assert_array_equal(photos.pixels[photos.offsets[n] :][: h * w * 3].reshape(h, w, 3), expected)


def test_load_photos_skips_bad_images_with_one_warning_each(folder):
    spoil(folder)
    with pytest.warns(UserWarning) as caught:
        photos = data.load_photos(f"folder:{folder}", min_size=SIZE)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 3
    for name, reason in [("0a_small.png", "31x90 pixels"), ("1a_text.jpg", "not an image"), ("2a_cut.png", "trunc")]:
        assert sum(name in message and reason in message for message in messages) == 1
    assert photos.names == ("0.png", "1.png", "2.png", "3.png", "sub/4.png")
    crops = np.asarray(data.random_crops(photos, jax.random.key(0), batch=64, size=SIZE))
    assert {assert_is_a_crop(crop)[0] for crop in crops} == {0, 1, 2, 3, 4}  # the hole of the cut one is never read


def test_nothing_left_says_what_was_seen(folder):
    spoil(folder)
    with pytest.warns(UserWarning), pytest.raises(sources.DataError) as caught:
        data.load_photos(f"folder:{folder}", min_size=81)
    assert f"no image of at least 81x81 pixels in folder {folder} (8 files seen, 7 too small, 1 unreadable)" in str(
        caught.value
    )


def test_more_than_int32_offsets_is_refused_with_the_way_out(folder, monkeypatch):
    monkeypatch.setattr(data, "_MAX_BYTES", 3 * sum(height * width for height, width in SHAPES))
    assert len(data.load_photos(f"folder:{folder}", min_size=SIZE)) == 5  # exactly full
    monkeypatch.setattr(data, "_MAX_BYTES", data._MAX_BYTES - 1)
    with pytest.raises(sources.DataError, match="streaming"):
        data.load_photos(f"folder:{folder}", min_size=SIZE)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("folder:/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("folder:", "no data called"),
        ("photos", "no data called 'photos'"),
        ("/tmp", "did you mean folder:/tmp"),
        ("sample:test", "no split 'test'"),
        ("tfds:no_such_set_of_photographs", "cannot read tfds:no_such_set_of_photographs@train .*not found"),
        ("tfds:mnist", "no colour image"),
    ],
)
def test_specs_that_name_nothing(spec, message):
    for read in (
        lambda: data.load_photos(spec, min_size=1),
        lambda: streaming.is_large(spec),
        lambda: data.whole_images(spec),
        lambda: batches(spec, 1),
    ):
        with pytest.raises(sources.DataError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path):
    for read in (
        lambda: data.load_photos(f"folder:{tmp_path}", min_size=1),
        lambda: data.whole_images(f"folder:{tmp_path}"),
        lambda: batches(f"folder:{tmp_path}", 0),
    ):
        with pytest.raises(sources.DataError, match="0 files seen"):
            read()
    assert not streaming.is_large(f"folder:{tmp_path}")


# random_crops


def test_random_crops_are_crops_of_the_photographs_everywhere(folder):
    photos = jax.device_put(data.load_photos(f"folder:{folder}", min_size=SIZE))
    crops = np.asarray(data.random_crops(photos, jax.random.key(1), batch=3000, size=SIZE))
    assert crops.shape == (3000, SIZE, SIZE, 3) and crops.dtype == np.uint8
    seen = [assert_is_a_crop(crop) for crop in crops]
    drawn = np.bincount([n for n, *_ in seen])
    assert np.abs(drawn - 600).max() < 110  # each photograph alike: five standard deviations are 110
    assert abs(sum(mirrored for *_, mirrored in seen) - 1500) < 140
    # photograph 1 is 33x32: two rows and one column are all the places there are
    assert {(row, column) for n, row, column, _ in seen if n == 1} == {(0, 0), (1, 0)}
    assert {row for n, row, *_ in seen if n == 3} == set(range(19)) == {column for n, _, column, _ in seen if n == 3}


def test_random_crops_depend_on_the_key_only(folder):
    photos = data.load_photos(f"folder:{folder}", min_size=SIZE)
    jitted = jax.jit(data.random_crops, static_argnames=("batch", "size"))
    first, again, other = (jitted(photos, jax.random.key(k), batch=8, size=16) for k in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, data.random_crops(photos, jax.random.key(5), batch=8, size=16))
    assert not np.array_equal(first, other)


def test_random_crops_of_a_photograph_that_is_too_small(folder):
    photos = data.load_photos(f"folder:{folder}", min_size=SIZE)
    with pytest.raises(sources.DataError, match="min_size=33"):
        data.random_crops(photos, jax.random.key(0), batch=1, size=SIZE + 1)


def test_photos_are_a_pytree_of_four_arrays(folder):
    photos = data.load_photos(f"folder:{folder}", min_size=SIZE)
    assert len(jax.tree.leaves(photos)) == 4
    moved = jax.device_put(photos)
    assert moved.names == photos.names and isinstance(moved.pixels, jax.Array)
    assert moved.total == photos.total


# whole_images, sample and tfds


def test_whole_images_come_in_order_and_a_bad_one_is_an_error(folder):
    found = list(data.whole_images(f"folder:{folder}"))
    assert [name for name, _ in found] == ["0.png", "1.png", "2.png", "3.png", "sub/4.png"]
    for (_, pixels), expected in zip(found, PHOTOGRAPHS):
        np.testing.assert_array_equal(pixels, expected)
    (folder / "1a.png").write_text("not an image")
    with pytest.raises(images.ImageError, match="1a.png"):
        list(data.whole_images(f"folder:{folder}"))


def test_sample_photographs_need_no_download_and_hold_one_out():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    train, valid = sources.sample_photographs(), sources.sample_photographs("valid")
    assert len(train) == 6 and len(valid) == 1 and not set(train) & set(valid)
    assert data.load_photos("sample", min_size=256).names == tuple(path.name for path in train)
    [(name, pixels)] = data.whole_images("sample:valid")
    assert name == "chelsea.png" and pixels.shape == (300, 451, 3)
    assert all(np.ptp(images.read_rgb(path).astype(int), axis=-1).max() > 50 for path in train)  # none is grey


def test_importing_the_modules_loads_no_data_library():
    libraries = {"grain", "tensorflow_datasets", "tensorflow", "skimage", "sklearn"}
    code = f"import sys, clic_jax.training.data, clic_jax.training.streaming; print({libraries} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_tfds_is_read_without_tensorflow(folder, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class ClicTinyPhotos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kinds = {"mask": (None, None, 1), "preview": (None, None, 3), "image": (None, None, 3)}
            features = {name: tfds.features.Image(shape=shape) for name, shape in kinds.items()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(4)), "test": self._generate_examples([4])}

        def _generate_examples(self, numbers):
            grey = tmp_path / "grey.png"
            Image.new("L", (8, 8)).save(grey)
            for path in (folder / ("sub" if n == 4 else "") / f"{n}.png" for n in numbers):
                yield path.name, {"mask": str(grey), "preview": str(grey), "image": str(path)}

    prepared = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    ClicTinyPhotos(data_dir=prepared, file_format="array_record").download_and_prepare()

    photos = data.load_photos("tfds:clic_tiny_photos", min_size=SIZE)
    assert sorted(zip(photos.heights.tolist(), photos.widths.tolist())) == sorted(SHAPES[:4])
    assert all(name.startswith("tfds:clic_tiny_photos@train[") for name in photos.names)
    [(_, pixels)] = data.whole_images("tfds:clic_tiny_photos@test")
    np.testing.assert_array_equal(pixels, PHOTOGRAPHS[4])
    stream = batches("tfds:clic_tiny_photos@train[:3]", 3, batch=3)
    assert len({assert_is_a_crop(crop)[0] for batch in stream for crop in batch}) == 3
    with pytest.raises(sources.DataError, match="Unknown split 'nosuch'"):
        streaming.is_large("tfds:clic_tiny_photos@nosuch")
    assert "tensorflow" not in sys.modules
