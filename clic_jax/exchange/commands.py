"""`clic-jax convert` and `clic-jax export`: their options, and what they do. JAX is imported at the first use."""

import argparse
from pathlib import Path

from clic_jax import api, cli, runtimes
from clic_jax.errors import UserError

FORMATS = ("onnx", "safetensors", "stablehlo")


def add_convert(parser: argparse.ArgumentParser):
    """The options of `convert`."""
    text = "a state dict of CLIC or CLIC_base: .pth or .pth.tar of torch.save, or .safetensors"
    parser.add_argument("checkpoint", type=cli.expanded, metavar="CHECKPOINT", help=text)
    text = "the folder to make, which then is a --model"
    parser.add_argument("--out", type=cli.expanded, required=True, metavar="DIR", help=text)
    text = (
        "photographs to measure on what files are coded with: folder:PATH, or sample, those inside the packages "
        "scikit-image and scikit-learn; %(default)s by default"
    )
    parser.add_argument("--data", default="sample", metavar="SPEC", help=text)
    text = "the rate-distortion trade-off that it was trained for, which no checkpoint says; 0.013 or 16.64 by default"
    parser.add_argument("--lmbda", type=float, metavar="X", help=text)
    text = "the distortion that it was trained for; %(default)s by default"
    parser.add_argument("--metric", choices=("mse", "ms-ssim"), default="mse", help=text)


def convert(args) -> int:
    """Makes a published folder of a checkpoint, and tells what it is."""
    cli.standard_output()
    _need_jax()
    from tqdm import tqdm

    from clic_jax import runtime
    from clic_jax.exchange.convert import convert as made

    runtime.use_cache()

    def watch(steps):
        return tqdm(steps, "measuring", unit="batch", disable=None, leave=False)

    options = {"data": args.data, "lmbda": args.lmbda, "metric": args.metric, "watch": watch}
    with runtime.computing():
        config, identity = made(args.checkpoint, args.out, **options)
    pqf = "without GuidedPQF" if config.model.pqf == "none" else "with GuidedPQF"
    print(f"{cli.shown(args.out)}: model {identity}, CLIC {pqf}, one rate, whatever the quality")
    return 0


def add_export(parser: argparse.ArgumentParser):
    """The options of `export`, but for its models."""
    text = (
        "onnx, graphs for onnxruntime, which go into the model's own folder; safetensors, the parameters in one file; "
        "stablehlo, what jax.export reads, for processors, GPUs and TPUs; %(default)s by default"
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help=text)
    text = "the folder to make, or to replace if it is such an export; without it MODEL-FORMAT here, but for onnx"
    parser.add_argument("--out", type=cli.expanded, metavar="DIR", help=text)


def check_export(args):
    """Raises: UserError where there are several models for one folder."""
    if args.out is not None and len(args.inputs) > 1:
        raise UserError(f"--out {args.out} is one folder for {len(args.inputs)} models: export them one at a time")


def export(args, name: str, _=None):
    """Exports one model as `export`'s options say, and tells where to."""
    folder = api.model_folder(name)
    _need_jax(folder)
    if args.format == "onnx" and args.out is None:
        from clic_jax.light import export as onnx

        onnx.write(folder)
        print(f"{cli.shown(name)} is ready for the runtime onnx")
        return
    from clic_jax.exchange import exports

    own = folder.name if folder.name != "published" else folder.parent.name
    out = args.out or f"{own}-{args.format}"
    exports.write(folder, args.format, Path(out))
    print(f"{cli.shown(name)} as {args.format}: {cli.shown(out)}")


def _need_jax(folder: Path = Path()):
    runtimes.choose(folder, "jax")
