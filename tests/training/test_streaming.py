"""Streamed crops: the photographs of an epoch, what resumes, what processes share. The pictures are test_data's."""

import warnings

import numpy as np
import pytest

from clic_jax.training import streaming
from clic_jax.training.sources import DataError
from tests.training.test_data import SHAPES, SIZE, assert_is_a_crop, batches, save_photographs, spoil


@pytest.fixture
def folder(tmp_path):
    return save_photographs(tmp_path / "photos")


def test_an_epoch_visits_every_photograph_once_in_changing_order(folder):
    epochs = batches(f"folder:{folder}", 6, batch=5)
    seen = [[assert_is_a_crop(crop)[0] for crop in batch] for batch in epochs]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in seen)
    assert len(set(map(tuple, seen))) > 1
    assert len({crop.tobytes() for crop in epochs.reshape(-1, SIZE, SIZE, 3)}) > 12  # positions change with the epoch
    assert {assert_is_a_crop(crop)[3] for batch in epochs for crop in batch} == {True, False}


def test_resuming_gives_the_batches_of_an_uninterrupted_run(folder):
    spec = f"folder:{folder}"
    whole = batches(spec, 9)
    for step in (1, 4, 8):
        np.testing.assert_array_equal(batches(spec, 9 - step, start_step=step), whole[step:])
    alone = f"folder:{folder / 'sub'}"  # one photograph, so that only the positions can differ
    assert not np.array_equal(batches(alone, 2, seed=4), batches(alone, 2, seed=3))


def test_processes_share_the_batches_of_a_single_one(folder):
    spec = f"folder:{folder}"
    whole = batches(spec, 5)
    shards = [batches(spec, 5, process_index=p, process_count=2) for p in range(2)]
    assert shards[0].shape == (5, 2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(np.concatenate(shards, axis=1), whole)
    with pytest.raises(DataError, match="batch of 4 .* 3 processes"):
        batches(spec, 1, process_count=3)


def test_worker_processes_give_the_same_batches(folder):
    spec = f"folder:{folder}"
    np.testing.assert_array_equal(batches(spec, 4, start_step=2, workers=2), batches(spec, 4, start_step=2))


def test_streaming_replaces_bad_images_and_stays_resumable(folder):
    spoil(folder)
    spec = f"folder:{folder}"
    with pytest.warns(UserWarning) as caught:
        whole = batches(spec, 8)
    messages = [str(warning.message) for warning in caught]
    assert sorted(message.split("skipped ")[1].split(":")[0] for message in messages) == [
        "0a_small.png",
        "1a_text.jpg",
        "2a_cut.png",
    ]
    assert {assert_is_a_crop(crop)[0] for crop in whole.reshape(-1, SIZE, SIZE, 3)} == {0, 1, 2, 3, 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(batches(spec, 3, start_step=5), whole[5:])


def test_streaming_only_bad_images_ends_with_an_error(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    (tmp_path / "b.png").write_text("not an image")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="2 files seen, all too small or unreadable"):
        batches(f"folder:{tmp_path}", 1)


def test_is_large_counts_decoded_bytes_from_headers(folder):
    spoil(folder)  # the text file counts nothing, the small and the cut image count by their headers
    size = 3 * (sum(height * width for height, width in SHAPES) + (SIZE - 1) * 90 + 64 * 64)
    assert not streaming.is_large(f"folder:{folder}", limit_mib=size / 2**20)
    assert streaming.is_large(f"folder:{folder}", limit_mib=(size - 1) / 2**20)
