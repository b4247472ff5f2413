"""A whole run in this process: its record, what is published of it, and when it stops."""

import dataclasses
import errno
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from clic_jax.checkpoints import published
from clic_jax.config import Config, ConfigError
from clic_jax.model.clic import init_params
from clic_jax.training import evaluation, pca_start, steps
from experiments import device
from experiments.train import __main__ as train
from experiments.train import deadline, loop, run_log
from experiments.train.deadline import Deadline
from tests.conftest import photograph
from tests.micro import MICRO

# a rate and a seed with which the average soon gets worse
EXPERIMENT = """import dataclasses

from tests.micro import MICRO


def get_config():
    train = dict(batch=8, log_every=2, save_every=4, eval_every=4, learning_rate=0.02, warmup=1, grad_clip=1e9, seed=3)
    return dataclasses.replace(MICRO, train=dataclasses.replace(MICRO.train, **train))
"""


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of a run of nine steps, what it said, what it would publish: parameters, and what is told of them)."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(photograph(64, 128, seed)).save(folder / "photos" / f"{seed}.png")
    (folder / "experiment.py").write_text(EXPERIMENT)
    said, spec = [], f"folder:{folder / 'photos'}"
    arguments = ["--config", folder / "experiment.py", "--data", spec, "--valid", spec, "--out", folder / "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_log.RunLog, "message", lambda self, text: said.append(text))
        one_device = steps.make_mesh(jax.devices()[:1])  # which compiles in half the time that eight take
        patch.setattr(steps, "make_mesh", lambda: one_device)
        given = []  # instead of compiling what publishing does
        patch.setattr(
            train.publish, "publish", lambda _, cfg, params, crops, about, **_more: given.append((params, about))
        )
        assert train.main([*map(str, arguments), "--max-steps", "9", "--profile", "2"]) == 0
    return folder / "out", said, *given


def test_every_row_says_seconds_rate_and_memory(run):
    out, _, _ = run
    training = [row for row in rows(out) if "loss" in row]
    assert [row["step"] for row in training] == [2, 4, 6, 8, 9]  # the last one of a single step
    for row in rows(out):
        assert row["memory_mib"] > 100 and "mfu" not in row  # of a CPU nobody has published a peak
    for before, row in zip(training, training[1:]):
        assert row["pixels_per_second"] > 0 and row["seconds"] > before["seconds"]
    evaluations = [row for row in rows(out) if "valid_loss_0.0018" in row]
    assert [row["step"] for row in evaluations] == [4, 8, 9] and "pixels_per_second" not in evaluations[0]
    for row in evaluations:  # how its clusters are used, a stage each
        assert 0 <= row["valid_clusters_entropy_g_a_stage1"] <= 1 and row["valid_clusters_pictures"] == 2
        assert 0.25 <= row["valid_clusters_largest_g_s_stage1"] <= 1 >= row["valid_clusters_dead_g_s_stage1"]


def test_the_best_held_out_average_is_published(run):
    """That of step 4, as the later ones are worse; the checkpoints of both are there."""
    out, said, (params, about) = run
    measured = {}
    for row in rows(out):
        if losses := [value for name, value in row.items() if name.startswith("valid_loss")]:
            measured[row["step"]] = np.mean(np.log(losses))
    assert min(measured, key=measured.get) == 4
    (line,) = (line for line in said if line.startswith("publishing step 4, whose held-out loss is "))
    assert float(re.search(r"is ([\d.]+)% lower than that of step 9", line)[1]) > 0.1
    jax.tree.map(np.testing.assert_array_equal, params, published.load_published(out / "4")[1])
    assert about["step"] == 4 and about["loss"] == pytest.approx(measured[4])


def test_profile(run):
    out, said, _ = run
    assert [path.stat().st_size > 1000 for path in out.glob("plugins/profile/*/*.xplane.pb")] == [True]
    assert sum("profile of some steps: tensorboard --logdir" in line for line in said) == 1


def test_tensorboard_has_the_config_and_a_picture(run):
    pytest.importorskip("tensorboardX")
    from tests.training.test_run_log import events

    values = [value for event in events(run[0]) for value in event.summary.value]
    (text,) = (value.tensor.string_val[0].decode() for value in values if value.tag.startswith("config"))
    assert json.loads(text)["train"]["grad_clip"] == 1e9
    pictures = [value.image for value in values if value.tag == "held_out/lmbda_0.0067"]
    assert [(picture.height, picture.width) for picture in pictures] == [(64, 128)] * 3


def test_what_goes_wrong_says_what_is_left(run, tmp_path):
    """The newest checkpoint and the line that goes on from it, or that there is none; one line, as the cause's own."""
    out, _, _ = run
    with pytest.raises(train.Stopped) as stopped, train.remains_told(out):
        raise loop.NotFinite("loss is nan at step 12: try a smaller train.learning_rate")
    assert str(stopped.value) == (
        "loss is nan at step 12: try a smaller train.learning_rate; go on from step 9 with: "
        f"python -m experiments.train --resume --out {out}"
    )
    with pytest.raises(train.Stopped, match="metrics.jsonl: No space left.*; there is no checkpoint to go on from"):
        with train.remains_told(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] += seconds."""
    now = [1000.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])
    return now


def test_the_whole_command_is_bounded(clock):
    """From its begin on, less what is to come: by what it took, or, before the first time, by estimate."""
    limit = Deadline(990.0, max_seconds=100)
    limit.start()
    assert limit.left() == 90
    limit.expect("publishing", compiled=20, pixels=3000)
    unmeasured = deadline.MARGIN * (deadline.COMPILING * 20 + 3000 / deadline.FORWARD / 100)
    assert limit.left(pixels_per_second=100) == pytest.approx(90 - unmeasured)
    limit.expect("evaluation", compiled=20, pixels=3e9)
    with limit.timed("evaluation"):
        clock[0] += 8
    assert limit.left(100) == pytest.approx(90 - 8 - unmeasured - deadline.MARGIN * 8)
    assert limit.after(100) == pytest.approx(unmeasured + deadline.MARGIN * 8)
    clock[0] += 1000
    assert limit.left(100) < 0


def test_training_alone_may_be_bounded(clock):
    limit = Deadline(0.0, train_seconds=30)
    limit.expect("publishing", compiled=1e6, pixels=0)
    clock[0] += 500
    limit.start()
    clock[0] += 10
    assert limit.left() == 20
    assert Deadline(0.0).left() == np.inf


def test_the_time_left_as_a_share(clock):
    """From 1 to 0, evenly, over the time of all runs that make one; 1 where no end is set."""
    limit = Deadline(0.0, train_seconds=30)
    limit.start(before=10)
    shares = []
    for _ in range(5):
        shares.append(limit.share())
        clock[0] += 10
    assert shares == [0.75, 0.5, 0.25, 0.0, 0.0]
    endless = Deadline(0.0)
    endless.start()
    assert endless.share() == 1


def test_published_peaks():
    """The longest name that fits; no figure for what its maker gives none."""
    assert device.published_peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12 / 2
    assert device.published_peak("NVIDIA H100 PCIe", "float32") == 51e12 / 2
    assert device.published_peak("TPU v5 lite", "bfloat16") == 197e12 / 2
    assert device.published_peak("TPU v5 lite", "float32") is None
    assert device.published_peak("cpu", "float32") is None


def test_mfu_and_seconds_of_a_resumed_run(tmp_path, monkeypatch):
    """The rate as a share of the peak's, without what was paused; seconds go on where the last kept row ended."""
    now = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    with run_log.RunLog(tmp_path, 10, peak=1000.0) as log:
        log.progress(1, 300)
        with log.paused():
            now[0] += 7
        now[0] += 2
        found = log.machine(uncounted=100)
        assert (found["seconds"], found["pixels_per_second"], found["mfu"]) == (9, 200, 0.2)
        assert log.machine().keys() == {"seconds", "memory_mib", "pixels_per_second", "mfu"} - {
            "pixels_per_second",
            "mfu",
        }
        log.row(5, loss=1, **found)
        log.row(7, loss=1, seconds=30)
    with run_log.RunLog(tmp_path, 10, 6) as log:
        now[0] += 4
        assert log.machine()["seconds"] == 13


def ms_ssim(config: Config) -> Config:
    """The same for the other distortion, at the same rates."""
    lmbdas = tuple(1300 * lmbda for lmbda in config.model.lmbdas)
    model = dataclasses.replace(config.model, lmbdas=lmbdas)
    return dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, metric="ms-ssim", crop=192))


def test_evaluation_by_the_trained_distortion(monkeypatch):
    """The loss has MS-SSIM in it, and stands in the row; by it the best is chosen."""
    config, x = ms_ssim(MICRO).model, photograph(192, 192)
    monkeypatch.setattr(evaluation, "reconstruct", lambda config, params, x, lmbda: (x // 2, 3.5 * x.size))
    (row,) = evaluation.evaluate(config, {}, [x], config.lmbdas[:1], "ms-ssim")
    assert row["bpp"] == 3.5 * 3
    assert row["loss"] == pytest.approx(config.lmbdas[0] * (1 - row["ms_ssim"]) + row["bpp"])
    assert 0 < row["ms_ssim"] < 1
    with pytest.raises(Exception, match="MS-SSIM needs sides of at least 161 pixels; this image is 128x64"):
        evaluation.evaluate(config, {}, [photograph(64, 128)], config.lmbdas[:1], "ms-ssim")


def test_held_out_photographs_too_small_for_ms_ssim(tmp_path):
    """Refused before the training, by name."""
    Image.fromarray(photograph(64, 128)).save(tmp_path / "small.png")
    assert len(train.held_out(f"folder:{tmp_path}", "mse")) == 1 and train.held_out("none", "ms-ssim") == []
    with pytest.raises(
        ConfigError, match="needs sides of 161 pixels or more, and .*small.png of --valid folder:.* has 128x64"
    ):
        train.held_out(f"folder:{tmp_path}", "ms-ssim")


def test_both_distortions_start_at_the_same_rate():
    """The transform codec's step follows the distortion: the very same start where lmbdas mean the same."""
    crops = np.stack([photograph(64, 64, seed) for seed in range(8)])
    params = init_params(MICRO.model)
    plain = pca_start.transform_codec(params, MICRO.model, crops)
    other = pca_start.transform_codec(params, ms_ssim(MICRO).model, crops, "ms-ssim")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain, other)
