"""The command `clic-jax`: pictures to .clic files and back.

Exit status: 0 if all went well; 1 if some files of several failed, each with one line on standard error; 2 if all did,
or the command makes no sense. A file that fails leaves no output behind.
"""

import argparse
import dataclasses
import functools
import json
import os

from clic_jax import api, cli, memory, runtimes
from clic_jax.bulk import engines, places, run, sources, work
from clic_jax.checkpoints.installed import remedy
from clic_jax.coding import effort as efforts
from clic_jax.coding import tiles
from clic_jax.errors import UserError
from clic_jax.exchange import commands as weights
from clic_jax.files import container, outputs, pictures, streams
from clic_jax.files.contents import contents
from clic_jax.quality import Quality

NAME = "clic-jax"


class Parser(argparse.ArgumentParser):
    """Reports mistakes in one line, without the usage before it."""

    def error(self, message):
        self.exit(2, f"{NAME}: error: {cli.shown(message)} (see {self.prog} --help)\n")


def main(argv=None):
    """Runs the command line and exits with its status."""
    args = _parser().parse_args(argv)
    cli.run(lambda: args.action(args), NAME)


def _parser() -> Parser:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, action, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        return sub

    def files(sub, metavar, text, nargs="*", kind=cli.expanded):
        sub.add_argument("inputs", nargs=nargs, type=kind, metavar=metavar, help=text)

    model = "an installed model, or the folder `published` of a training run; by default "
    sub = command("compress", _compress, "Pictures (any file that Pillow reads) to .clic files, IN.clic by default.")
    text = "a picture; a folder, for all in it and below it; an address, as s3://bucket/a.png; - for standard input"
    files(sub, "IN", text, kind=places.expanded)
    _add_output(sub, "a file, a folder, an address, or - for standard output")
    sub.add_argument("-q", "--quality", type=float, default=50, help="1 (smallest) to 100 (best); 50 by default")
    sub.add_argument("--model", type=cli.expanded, help=f"{model}{api.DEFAULT_MODEL}")
    sub.add_argument("--strip", action="store_true", help="leave EXIF data out (place, time, camera)")
    text = (
        "0 to 9: smaller files for more time; 1 looks back once at what was coded; from 2 on a search takes about half "
        "as long again each time, 9 some 20 seconds for 768x512 pixels on two cores; 0 by default"
    )
    sub.add_argument("--effort", type=int, default=0, metavar="N", help=text)
    text = "code the picture so, too, at the same squared error or less, and keep the smaller; none by default"
    sub.add_argument("--fallback", choices=("none", *streams.NAMES), default="none", help=text)
    text = "decode what is made, and compare it with what was meant, before it is written"
    sub.add_argument("--verify", action="store_true", help=text)
    text = "decode what is made, and put its PSNR into the report"
    sub.add_argument("--psnr", action="store_true", help=text)
    _add_bulk(sub)

    text = "Files to pictures, IN.png by default."
    sub = command("decompress", _decompress, text)
    text = "a .clic file; a folder, for all in it and below it; an address; - for standard input"
    files(sub, "IN", text, kind=places.expanded)
    text = (
        "a file, whose suffix chooses the format (JPEG at quality 95); a folder; an address; or - for standard output"
    )
    _add_output(sub, text)
    sub.add_argument("--model", type=cli.expanded, help=f"{model}the installed one that the file names")
    _add_bulk(sub)

    sub = command("info", _info, "What a .clic file says about itself.")
    files(sub, "FILE", "a .clic file; - for standard input", nargs=1)
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = command("models", _models, "The installed models, or those given: id, qualities, parameters, folder.")
    files(sub, "MODEL", "a name or a folder")
    _add_runtime(sub)
    text = "A checkpoint of the authors' PyTorch model as a model that codes pictures; needs no PyTorch."
    weights.add_convert(command("convert", weights.convert, text))
    text = "A published model made ready for the runtime onnx, or as safetensors or StableHLO (docs/weights.md)."
    sub = command("export", _export, text)
    files(sub, "MODEL", "a folder, or the name of an installed model", nargs="+")
    weights.add_export(sub)
    return parser


def _add_output(parser, text):
    parser.add_argument("-o", "--output", type=places.expanded, metavar="OUT", help=text)
    text = "replace files that are there already; without it, only a FILE that -o names is replaced"
    parser.add_argument("-f", "--force", action="store_true", help=text)


def _add_bulk(parser):
    text = "refuse larger pictures; %(default)s by default"
    parser.add_argument("--max-pixels", type=int, default=container.MAX_PIXELS, metavar="N", help=text)
    text = (
        "largest side of what is transformed at once, a multiple of 64; less memory if smaller; %(default)s by default"
    )
    parser.add_argument("--tile", type=int, default=tiles.DEFAULT, metavar="PIXELS", help=text)
    _add_runtime(parser)
    text = "processes that share the files and the processors, each with its own memory; 1 by default"
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help=text)
    text = "the address of a Dask scheduler, whose workers share the files; or local, for --jobs workers here"
    parser.add_argument("--cluster", metavar="ADDRESS", help=text)
    text = "a file with one more input a line; - for standard input. Their paths are kept below a folder that -o names"
    parser.add_argument("--files-from", type=places.expanded, metavar="LIST", help=text)
    text = "a file for a line of JSON about each input: sizes, pixels, quality, seconds, error"
    parser.add_argument("--report", type=cli.expanded, metavar="FILE.jsonl", help=text)
    text = "skip inputs whose output is there, whole, and made from them as they are; and go on with the report"
    parser.add_argument("--resume", action="store_true", help=text)


def _add_runtime(parser):
    text = (
        "onnx starts at once and needs no JAX, jax serves GPUs and efforts from 2 on; by default the first a model "
        f"has, or what ${runtimes.VARIABLE} says; int8 is onnx with quantised transforms: quicker, somewhat less exact"
    )
    parser.add_argument("--runtime", choices=runtimes.RUNTIMES, help=text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def _compress(args) -> int:
    todo = _tasks(args, ".clic")
    tiles.check(args.tile)
    Quality.of(args.quality)
    set_up = _set_up(args, [args.model])
    from clic_jax.coding import equal_quality

    codec = api.open_model(args.model, runtime=_runtime(args))
    codec.check_effort(args.effort)
    equal_quality.check(args.fallback, codec)
    options = {"quality": args.quality, "model": args.model, "metadata": not args.strip, "tile": args.tile}
    options |= {"max_pixels": args.max_pixels, "fallback": args.fallback, "verify": args.verify, "effort": args.effort}
    options["runtime"] = args.runtime
    if args.jobs == 1 and not args.cluster:  # or several pictures would fight for the line
        from tqdm import tqdm

        options["watch"] = functools.partial(tqdm, unit="step", disable=None, leave=False)
    return _run(args, todo, functools.partial(work.compress, options, args.psnr, args.resume), set_up)


def _decompress(args) -> int:
    todo = _tasks(args, ".png")
    tiles.check(args.tile)
    kind = outputs.format_of(args.output) if [args.output] == [task.target for task in todo] else "PNG"
    set_up = _set_up(args, list(api.installed()) if args.model is None else [args.model])
    if args.model is not None:
        api.open_model(args.model, runtime=args.runtime)  # one error, not one a file
    options = {"model": args.model, "max_pixels": args.max_pixels, "tile": args.tile, "runtime": args.runtime}
    return _run(args, todo, functools.partial(work.decompress, options, kind, args.resume), set_up)


def _info(args) -> int:
    cli.standard_output()

    def work(_, source):
        about = container.peek(contents(source))
        name = next((name for name, model_id in api.installed().items() if model_id == about["model_id"]), None)
        about = dict.fromkeys(("width", "height", "quality")) | {"model": name} | about
        if args.json:
            print(json.dumps(about))
            return
        total = about["bytes"].pop("total")
        parts = ", ".join(f"{part} {size}" for part, size in about["bytes"].items())
        print("{width} x {height} pixels, quality {quality:g}".format(**about))
        if "classical" in about:
            how = "lossless" if about["lossless"] else "with no more squared error than a model at that quality"
            print(f"{about['classical']}, {how}; no model is needed")
        else:
            hint = name or f"not installed: {remedy(about['model_id'])}"
            print(f"model {about['model_id']} ({hint})")
        print(f"{total} bytes, {8 * total / (about['width'] * about['height']):.3f} bits per pixel: {parts}")

    return _batch(args.inputs, work)


def _models(args) -> int:
    cli.standard_output()
    names = args.inputs or list(api.installed())
    if not names:
        print("no model is installed; --model FOLDER takes the folder `published` of a training run")
        return 0
    _set_up(args, names)

    def work(name, _):
        codec = api.open_model(name, runtime=args.runtime)
        folder, rates = api.folder_of(name), codec.config.model.lmbdas
        qualities = "quality 1 to 100" if len(rates) > 1 else "one rate, whatever the quality"
        about = f"id {codec.model_id}, {qualities}, {codec.parameters / 1e6:.1f} M parameters"
        print(f"{cli.shown(name)}: {about}, {cli.shown(folder)}")

    return _batch(names, work)


def _export(args) -> int:
    cli.standard_output()
    weights.check_export(args)
    return _batch(args.inputs, functools.partial(weights.export, args))


def _tasks(args, suffix: str) -> list[sources.Task]:
    """What to do with each input. Raises: UserError where that cannot be."""
    engines.check(args.cluster)
    found, folder = sources.found(args.inputs, args.files_from, clic=suffix != ".clic")
    if args.cluster and "-" in (found[0].name, args.output):
        raise UserError("standard input and output (-) do not go with --cluster: name files")
    if args.cluster and args.model and os.path.isdir(args.model):
        args.model = os.path.abspath(args.model)  # its workers are in other folders
    return sources.tasks(found, folder, args.output, suffix)


def _run(args, todo: list[sources.Task], work, set_up) -> int:
    how = run.How(NAME, pictures.ImageWarning, set_up, args.output, args.jobs, args.cluster)
    return run.run(todo, work, dataclasses.replace(how, report=args.report, resume=args.resume, force=args.force))


def _set_up(args, models):
    """Makes this process quick with the models; returns what does so in others."""
    prepare = functools.partial(_prepare, runtimes.wants_jax(map(api.model_folder, models), _runtime(args)))
    prepare()
    return prepare


def _runtime(args) -> str | None:
    """What the models of a command compute with, if that is not left to them: searches need JAX."""
    return args.runtime or ("jax" if efforts.steps(getattr(args, "effort", 0)) else None)


def _prepare(jax: bool):
    """What makes JAX and NumPy quick, before their first use."""
    memory.keep_memory()
    if jax:
        from clic_jax import runtime

        runtime.use_cache()


def _batch(names: list[str], work) -> int:
    """cli.batch over files, of which - is standard input: work(name, path or open file, which need not be seekable)."""
    names = list(dict.fromkeys(names))  # one that is given twice is done once
    return cli.batch(names, functools.partial(_opened, work), NAME, pictures.ImageWarning)


def _opened(work, name):
    return work(name, cli.standard_input() if name == "-" else name)


if __name__ == "__main__":
    # by its own name: the processes of --jobs do not import a package's `__main__`, so would not find what to call
    from clic_jax.__main__ import main

    main()
