"""One process of `experiments.portability`: writes files, or reads everybody's, under the setting it was started in.

    python -m experiments.portability.worker FOLDER SETTING write|read

FOLDER holds job.json and photographs.npz, and gets SETTING.write.json and SETTING.read.json, the files and what their
writers showed. Both kinds of files go through the same `Codec`; "float" has the networks as they were trained in place
of the integer ones, in the way that most learned codecs code.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from clic_jax import memory
from clic_jax.checkpoints import published
from clic_jax.coding import codec, fixedpoint
from clic_jax.coding.range_coder import StreamError
from clic_jax.files import container, images
from clic_jax.light import programs
from clic_jax.model.clic import CLIC
from clic_jax.model.context import ContextModel
from clic_jax.quality import Quality
from clic_jax.scales import LOG_MIN, LOG_STEP
from experiments import cli


class FloatContext:
    """`FixedContext` in float32: the trained networks, and nothing rounded but the log scale, to find its table."""

    def __init__(self, config, params, exponents):
        self.config, self.params = config, params

    def features(self, z_hat):
        return CLIC(self.config).apply({"params": self.params}, jnp.float32(z_hat), method=CLIC.hyper_features)[0]

    def support(self, k, decoded, features):
        return self._network("support", k, [v * 2.0**-fixedpoint.Y_BITS for v in decoded], features)

    def neighbours(self, k, anchors):
        return self._network("neighbours", k, anchors * 2.0**-fixedpoint.Y_BITS)

    def distribution(self, k, neighbours, support):
        mean, raw = self._network("distribution", k, neighbours, support)
        steps = (raw - LOG_MIN) / LOG_STEP
        return mean * 2.0**fixedpoint.Y_BITS, jnp.round(steps * 2**fixedpoint.INDEX_BITS).astype(jnp.int32)

    def _network(self, name, *args):
        return ContextModel(self.config).apply({"params": self.params["context"]}, *args, method=name)


def in_fours(networks: type) -> type:
    """The same networks computing four pictures at a time, of which the first is the one that is wanted."""

    def first(function, *arrays):
        four = jax.tree.map(lambda v: jnp.concatenate([v, v[:, ::-1], v[:, :, ::-1], v[:, ::-1, ::-1]]), arrays)
        return jax.tree.map(lambda v: v[:1], function(*four))

    class InFours(networks):
        def features(self, z_hat):
            return first(super().features, z_hat)

        def support(self, k, *arrays):
            return first(lambda *four: super(InFours, self).support(k, *four), *arrays)

        def neighbours(self, k, *arrays):
            return first(lambda *four: super(InFours, self).neighbours(k, *four), *arrays)

        def distribution(self, k, *arrays):
            return first(lambda *four: super(InFours, self).distribution(k, *four), *arrays)

    return InFours


class Recorded(codec.Codec):
    """A codec that keeps a hash of the latents that it coded last: every bit of z_hat and y_hat, before any filter."""

    latents = ""

    def run_schedule(self, z, quality, code):
        y_hat = super().run_schedule(z, quality, code)
        arrays = (np.asarray(z, np.int32), np.asarray(y_hat))
        self.latents = hashlib.sha256(b"".join(v.tobytes() for v in arrays)).hexdigest()
        return y_hat


def open_codecs(model: str, setting: dict) -> dict[str, Recorded]:
    """The published model as a codec of either kind, its networks computing 1 or 4 pictures at a time ("batch").

    The runtime "onnx" has the integer kind alone.
    """
    batch = setting.get("batch", 1)
    if setting.get("runtime") == "onnx":
        light, data = programs.load(model), published.load_coding(model)
        return {"integer": Recorded(light.config, light.params, light.model_id, data, programs=light.programs)}
    arguments, found = (*published.load_published(model), published.load_coding(model)), {}
    for kind, networks in (("integer", fixedpoint.FixedContext), ("float", FloatContext)):
        found[kind] = Recorded(*arguments, networks=in_fours(networks) if batch == 4 else networks)
    return found


def float_outputs(coder: codec.Codec, x: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    """Float results by which settings differ: y of g_a, and the context networks' answer to the same integers."""
    config = coder.config.model
    networks = (in_fours(FloatContext) if batch == 4 else FloatContext)(config, coder.params, None)
    z_hat = np.random.default_rng(0).integers(-9, 10, (1, 4, 4, config.hyper_layers[-1][0])).astype(np.int32)
    padded = images.pad_to_multiple(x, codec.STRIDE)[None]
    lmbda = jnp.full(1, config.lmbdas[0])

    def analyse(params, x):
        return CLIC(config).apply({"params": params}, x.astype(jnp.float32) / 255, lmbda, method=CLIC.analyse)[0]

    def network(z_hat):
        features = networks.features(z_hat)
        return networks.distribution(0, None, networks.support(0, [], features))[0] * 2.0**-fixedpoint.Y_BITS

    return {"y": np.asarray(jax.jit(analyse)(coder.params, padded)), "mean": np.asarray(jax.jit(network)(z_hat))}


def write(folder: Path, name: str, job: dict, coders: dict, photographs: dict) -> dict:
    """Codes each photograph at each quality in each kind; returns what is known of the files and of the setting."""
    x = next(iter(photographs.values()))
    if "float" in coders:
        floats = float_outputs(coders["float"], x, job["settings"][name].get("batch", 1))
    else:
        config, padded = coders["integer"].config.model, images.pad_to_multiple(x, codec.STRIDE)[None]
        floats = {"y": coders["integer"].programs.analyse(padded, np.full(1, config.lmbdas[0], np.float32))}
    np.savez(folder / f"{name}.floats.npz", **floats)
    files = []
    for kind, coder in coders.items():
        for title, x in photographs.items():
            for quality in job["qualities"]:
                coded, latents = coder.encode(x, Quality.of(quality))
                header = container.Header(
                    x.shape[1],
                    x.shape[0],
                    Quality.of(quality),
                    coder.model_id,
                    coded.check,
                    False,
                    coded.z_bytes,
                    coded.pqf_bytes,
                )
                path = f"{kind} {title} {quality:g} {name}"
                (folder / f"{path}.clic").write_bytes(container.pack(header, coded.stream))
                np.save(folder / f"{path}.npy", coder.show(latents, *x.shape[:2]))
                about = {"kind": kind, "file": f"{title} {quality:g}", "writer": name}
                files.append(about | {"path": path, "latents": coder.latents})
    return {"files": files, "python": sys.version.split()[0], "jax": jax.__version__, "backend": jax.default_backend()}


def read(folder: Path, job: dict, coders: dict) -> list[dict]:
    """Decodes every file; a row each: the error's name or None, are the latents the writer's, the pixels' distance."""
    rows, known = [], {}
    for writer in job["settings"]:
        for file in json.loads((folder / f"{writer}.write.json").read_text())["files"]:
            if file["kind"] not in coders:
                continue
            data = (folder / f"{file['path']}.clic").read_bytes()
            key = (file["kind"], data)
            if key not in known:
                known[key] = decode(coders[file["kind"]], data)
            error, latents, x = known[key]
            row = {key: file[key] for key in ("kind", "file", "writer")}
            row |= {"error": error, "latents": latents == file["latents"]}
            if not error:
                distance = np.abs(x.astype(int) - np.load(folder / f"{file['path']}.npy"))
                row |= {"largest": int(distance.max()), "differ": int((distance > 0).sum()), "samples": distance.size}
            rows.append(row)
    return rows


def decode(coder: Recorded, data: bytes):
    """(name of the error or None, hash of the latents, picture or None) of one file."""
    header, stream, _ = container.unpack(data)
    size, filtered = (header.height, header.width), header.pqf_bytes is not None
    try:
        latents = coder.read(stream, filtered, header.latents_check, *size, header.quality)
    except (container.Desync, StreamError) as error:
        return type(error).__name__, coder.latents, None
    return None, coder.latents, coder.show(latents, *size)


def main() -> int:
    """Runs the command line."""
    folder, name, task = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    memory.keep_memory()
    job = json.loads((folder / "job.json").read_text())
    coders = open_codecs(job["model"], job["settings"][name])
    if task == "write":
        result = write(folder, name, job, coders, dict(np.load(folder / "photographs.npz")))
    else:
        result = read(folder, job, coders)
    (folder / f"{name}.{task}.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    cli.run(main)
