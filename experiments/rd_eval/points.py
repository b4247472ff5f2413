"""The points of a curve: one image at one quality through a classical codec, a model's files, or its own bit count.

Each is a Subject, whose `code` turns pixels into a Coded; `measure` makes one row of the results from it.
"""

import dataclasses
import functools
import importlib.metadata
import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from clic_jax import api, metrics, runtime
from clic_jax.checkpoints import installed, published
from clic_jax.coding import equal_quality
from clic_jax.errors import UserError
from clic_jax.files import container, images
from clic_jax.quality import Quality
from clic_jax.training import evaluation
from experiments.rd_eval import codecs

MODEL_QUALITIES = (1, 20, 40, 60, 80, 100)
# as --metric calls them: as the results do
METRICS = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb", "ssimulacra2": "ssimulacra2"}

RUNTIME = "jax"  # of models, if nothing is said: what the committed results were measured with, what searches need


class MissingMetric(UserError):
    """A metric whose package is not installed; says what to install."""


class CodecFailed(UserError):
    """A codec refused an image; names both."""


@dataclasses.dataclass(frozen=True)
class Coded:
    """One image, coded and decoded. `bits` are 8 a byte of the file, except where a model estimates them."""

    bits: float
    size: int | None  # bytes of the file
    x_hat: np.ndarray  # uint8 [H, W, 3]
    encoding_time: float | None  # seconds
    decoding_time: float | None
    kept: str | None = None  # of a file with a fallback: the codec whose picture it holds


@dataclasses.dataclass(frozen=True)
class Subject:
    """A codec to measure. `code` can be sent to another process unless there is a model in it."""

    name: str  # for plots and tables
    codec: str  # for files, unique
    description: str
    qualities: tuple[float, ...]
    versions: dict[str, str]
    code: Callable[[np.ndarray, float], Coded]
    model_id: str | None = None
    estimate: bool = False


def classical(name: str, qualities=None) -> Subject:
    """The subject of a classical codec. Raises: as `codecs.open_codec` and `codecs.check_quality`."""
    codec = codecs.open_codec(name)
    qualities = tuple(codecs.check_quality(codec, quality) for quality in qualities or codec.qualities)
    code = functools.partial(_code_classical, name)
    return Subject(codec.label, name, codec.description, qualities, {"encoder": codec.version()}, code)


def of_model(
    name_or_path: str,
    qualities=None,
    estimate: bool = False,
    effort: int = 0,
    fallback: str = equal_quality.NONE,
    runtime: str = RUNTIME,
) -> Subject:
    """The subject of a published model: its .clic files, or with `estimate` the bits that the float model counts.

    effort, fallback, runtime: as for `api.compress`. They are told in the name.

    Raises: NoModel, CheckpointError; UserError for a model with one rate only; QualityError; EffortError;
      FallbackError; MissingCodec; NoRuntime.
    """
    config, params, model_id = published.load_published(name_or_path)
    if not config.model.variable_rate:
        raise UserError(f"{name_or_path} has one rate only; qualities need a model with several model.lmbdas")
    qualities = tuple(qualities or MODEL_QUALITIES)
    for quality in qualities:
        Quality.of(quality)
    name = model_name(name_or_path)
    packages = "clic_jax", "jax" if runtime == "jax" else "onnxruntime", "constriction"
    versions = {package: importlib.metadata.version(package) for package in packages}
    if estimate:
        code = functools.partial(_estimate, config.model, params)
        return Subject(
            f"{name} (estimate)", name, "bits counted by the model, no files", qualities, versions, code, model_id, True
        )
    opened = api.open_model(name_or_path, runtime=runtime)  # complains here of a model that cannot write files
    opened.check_effort(effort)
    equal_quality.check(fallback, opened)
    options = {"effort": effort, "fallback": fallback, "runtime": runtime}
    code = functools.partial(_code_files, name_or_path, options, set())
    label, codec, how = name, name, f"{config.name} in .clic files"
    if effort:
        label, codec, how = f"{name}, effort {effort}", f"{name}-effort{effort}", f"{how} of effort {effort}"
    if fallback != equal_quality.NONE:
        other = codecs.CODECS[fallback]
        label, codec = f"{label}, with fallback {fallback}", f"{codec}-fallback-{fallback}"
        how = f"{how}, or {other.label} or lossless WebP in them where that is smaller at equal squared error"
        versions["fallback"] = other.version()
    if runtime != RUNTIME:
        label, codec, how = f"{label}, {runtime}", f"{codec}-{runtime}", f"{how}, by the runtime {runtime}"
    return Subject(label, codec, how, qualities, versions, code, model_id)


def measure(subject: Subject, folder: Path, name: str, quality: float, wanted: tuple[str, ...]) -> dict:
    """One row: the image of that name in the folder at that quality; distortions not wanted, or undefined, are None.

    Raises: ImageError; CodecFailed for whatever the codec says against the image.
    """
    x = images.read_rgb(folder / name, name)
    height, width = x.shape[:2]
    try:
        coded = subject.code(x, quality)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CodecFailed(
            f"{subject.codec} at quality {quality:g} failed on {name} ({width}x{height}): {text}"
        ) from error
    x_hat = coded.x_hat[:height, :width]
    row = {
        "name": name,
        "quality": quality,
        "width": width,
        "height": height,
        "bytes": coded.size,
        "bpp": coded.bits / (height * width),
        METRICS["psnr"]: _finite(metrics.psnr(x, x_hat)) if "psnr" in wanted else None,
        METRICS["ms-ssim"]: _ms_ssim(x, x_hat) if "ms-ssim" in wanted and large_enough(height, width) else None,
        METRICS["ssimulacra2"]: _ssimulacra2(x, x_hat) if "ssimulacra2" in wanted else None,
        "encoding_time": coded.encoding_time,
        "decoding_time": coded.decoding_time,
    }
    return row if coded.kept is None else row | {"kept": coded.kept}


def check_metrics(wanted: tuple[str, ...]) -> None:
    """Raises: MissingMetric for one whose package is not installed."""
    if "ssimulacra2" in wanted:
        try:
            import ssimulacra2  # noqa: F401
        except ImportError:
            raise MissingMetric("SSIMULACRA 2 needs its package: pip install '.[report]'") from None


def large_enough(height: int, width: int) -> bool:
    """Whether the five scales of MS-SSIM fit."""
    return min(height, width) >= metrics.MS_SSIM_MIN_SIDE


def _finite(value) -> float | None:
    """None for the PSNR of equal images: JSON has no infinity, and a curve no such point."""
    return float(value) if math.isfinite(value) else None


def _ms_ssim(x: np.ndarray, x_hat: np.ndarray) -> float:
    """`metrics.ms_ssim` in float64, compiled: four times as fast as NumPy, and the same to 1e-12."""
    with runtime.doubles():
        return float(_compiled_ms_ssim(jnp.asarray(x / 255), jnp.asarray(x_hat / 255)))


_compiled_ms_ssim = jax.jit(metrics.ms_ssim)


def _ssimulacra2(x: np.ndarray, x_hat: np.ndarray) -> float:
    """The package's score: 100 for equal images, 90 where hardly anybody sees a difference, below 0 for the worst."""
    from ssimulacra2 import compute_ssimulacra2

    files = io.BytesIO(), io.BytesIO()  # it reads files
    for file, pixels in zip(files, (x, x_hat)):
        Image.fromarray(pixels).save(file, "BMP")
    return float(compute_ssimulacra2(*files))


def _code_classical(name: str, x: np.ndarray, quality: float) -> Coded:
    codec = codecs.CODECS[name]
    return _timed(lambda: codec.encode(x, quality), codec.decode)


def _code_files(model: str, options: dict, seen: set, x: np.ndarray, quality: float) -> Coded:
    """Through a .clic file in memory. `seen`: shapes that are compiled; a new one is coded once untimed."""
    runtime = options["runtime"]
    if x.shape not in seen:
        once = api.compress(x, quality=quality, model=model, effort=min(options["effort"], 2), runtime=runtime)
        api.decompress(once, model=model, max_pixels=None, runtime=runtime)
        seen.add(x.shape)
    files = []

    def encode():
        files.append(api.compress(x, quality=quality, model=model, **options))
        return files[-1]

    coded = _timed(encode, lambda data: api.decompress(data, model=model, max_pixels=None, runtime=runtime))
    if options["fallback"] == equal_quality.NONE:
        return coded
    about = container.peek(files[-1])
    kept = "lossless webp" if about.get("lossless") else about.get("classical", "model")
    return dataclasses.replace(coded, kept=kept)


def _timed(encode: Callable[[], bytes], decode: Callable[[bytes], np.ndarray]) -> Coded:
    begin = time.perf_counter()
    data = encode()
    middle = time.perf_counter()
    x_hat = decode(data)
    end = time.perf_counter()
    return Coded(8 * len(data), len(data), x_hat, middle - begin, end - middle)


def _estimate(config, params, x: np.ndarray, quality: float) -> Coded:
    lmbda = Quality.of(quality).lmbda(config.lmbdas)
    x_hat, bits = evaluation.reconstruct(config, params, x, lmbda)
    return Coded(bits, None, x_hat, None, None)


def model_name(name_or_path: str) -> str:
    """What its results are called: an installed model's name, or the folder's, or the run's if that is `published`."""
    if name_or_path in installed.installed():
        return name_or_path
    folder = installed.folder_of(name_or_path).resolve()
    return folder.parent.name if folder.name == "published" else folder.name
