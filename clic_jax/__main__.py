"""The command `clic-jax`: pictures to .clic files and back.

Exit status: 0 if all went well; 1 if some files of several failed, each with one line on standard error; 2 if all did,
or the command makes no sense. A file that fails leaves no output behind.
"""

import argparse
import functools
import io
import json
import os
from pathlib import Path

from clic_jax import api, cli
from clic_jax.checkpoints.installed import remedy
from clic_jax.coding import tiles
from clic_jax.errors import UserError
from clic_jax.files import atomic, container, outputs, pictures, streams
from clic_jax.files.contents import contents, read
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

    def files(sub, metavar, text, nargs="+"):
        sub.add_argument("inputs", nargs=nargs, type=cli.expanded, metavar=metavar, help=text)

    model = "an installed model, or the folder `published` of a training run; by default "
    sub = command("compress", _compress, "Pictures (any file that Pillow reads) to .clic files, IN.clic by default.")
    files(sub, "IN", "a picture; - for standard input")
    _add_output(sub, "a file, a folder, or - for standard output")
    sub.add_argument("-q", "--quality", type=float, default=50, help="1 (smallest) to 100 (best); 50 by default")
    sub.add_argument("--model", type=cli.expanded, help=f"{model}{api.DEFAULT_MODEL}")
    sub.add_argument("--strip", action="store_true", help="leave EXIF data out (place, time, camera)")
    text = (
        "0 to 9: search longer for smaller files; each takes about half as long again as the one before, 9 some 20 "
        "seconds for 768x512 pixels on two cores; 0, no search, by default"
    )
    sub.add_argument("--effort", type=int, default=0, metavar="N", help=text)
    text = "code the picture so, too, at the same squared error or less, and keep the smaller; none by default"
    sub.add_argument("--fallback", choices=("none", *streams.NAMES), default="none", help=text)
    text = "decode what is made, and compare it with what was meant, before it is written"
    sub.add_argument("--verify", action="store_true", help=text)
    _add_tile_and_jobs(sub)

    text = "Files to pictures, IN.png by default."
    sub = command("decompress", _decompress, text)
    files(sub, "IN", "a .clic file; - for standard input")
    text = "a file, whose suffix chooses the format (JPEG at quality 95); a folder; or - for standard output (PNG)"
    _add_output(sub, text)
    sub.add_argument("--model", type=cli.expanded, help=f"{model}the installed one that the file names")
    _add_tile_and_jobs(sub)

    sub = command("info", _info, "What a .clic file says about itself.")
    files(sub, "FILE", "a .clic file; - for standard input", nargs=1)
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = command("models", _models, "The installed models, or those given: id, qualities, parameters, folder.")
    files(sub, "MODEL", "a name or a folder", nargs="*")
    return parser


def _add_output(parser, text):
    parser.add_argument("-o", "--output", type=cli.expanded, metavar="OUT", help=text)
    text = "replace files that are there already; without it, only a FILE that -o names is replaced"
    parser.add_argument("-f", "--force", action="store_true", help=text)


def _add_tile_and_jobs(parser):
    text = "refuse larger pictures; %(default)s by default"
    parser.add_argument("--max-pixels", type=int, default=container.MAX_PIXELS, metavar="N", help=text)
    text = (
        "largest side of what is transformed at once, a multiple of 64; less memory if smaller; %(default)s by default"
    )
    parser.add_argument("--tile", type=int, default=tiles.DEFAULT, metavar="PIXELS", help=text)
    text = "processes that share the files and the processors, each with its own memory; 1 by default"
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help=text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def _compress(args) -> int:
    targets = _targets(args, ".clic")
    tiles.check(args.tile)
    _set_up()
    Quality.of(args.quality)
    from clic_jax.coding import equal_quality

    codec = api.open_model(args.model)
    codec.check_effort(args.effort)
    equal_quality.check(args.fallback, codec)
    return _batch(args.inputs, functools.partial(_compress_one, args, targets, _real(args.inputs)), args.jobs)


def _compress_one(args, targets, inputs, name, source):
    from tqdm import tqdm

    _check_target(args, targets[name], inputs)
    if name == "-":
        source = io.BytesIO(read(source))
        source.name = name
    options = {"quality": args.quality, "model": args.model, "metadata": not args.strip, "tile": args.tile}
    options |= {"max_pixels": args.max_pixels, "fallback": args.fallback, "verify": args.verify}
    # one bar for the steps of a picture, unless several pictures would fight for the line
    watch = iter if args.jobs > 1 else functools.partial(tqdm, unit="step", disable=None, leave=False)
    _write(args, targets[name], api.compress(source, **options, effort=args.effort, watch=watch))


def _decompress(args) -> int:
    targets = _targets(args, ".png")
    tiles.check(args.tile)
    kind = outputs.format_of(args.output) if [args.output] == list(targets.values()) else "PNG"
    _set_up()
    if args.model is not None:
        api.open_model(args.model)  # one error, not one a file
    return _batch(args.inputs, functools.partial(_decompress_one, args, targets, _real(args.inputs), kind), args.jobs)


def _decompress_one(args, targets, inputs, kind, name, source):
    target = targets[name]
    _check_target(args, target, inputs)
    image = api.decompress_image(source, model=args.model, max_pixels=args.max_pixels, tile=args.tile)
    _write(args, target, outputs.encoded(image, kind))


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
    _set_up()
    from jax import tree

    def work(name, _):
        codec = api.open_model(name)
        count = sum(leaf.size for leaf in tree.leaves(codec.params))
        folder, qualities = api.folder_of(name), "1 to 100"
        about = f"id {codec.model_id}, quality {qualities}, {count / 1e6:.1f} M parameters"
        print(f"{cli.shown(name)}: {about}, {cli.shown(folder)}")

    return _batch(names, work)


def _set_up():
    """What JAX needs to be quick, before its first use."""

    from clic_jax import runtime

    runtime.keep_memory()
    runtime.use_cache()


def _targets(args, suffix: str) -> dict[str, str]:
    """Where to write what becomes of each input. Raises: UserError where that cannot be."""
    inputs, output, several = args.inputs, args.output, len(args.inputs) > 1
    if several and ("-" in inputs or output == "-"):
        raise UserError("standard input and output (-) go with one input only")
    if output is None and (pipe := next(filter(_is_pipe, inputs), None)):
        raise UserError(f"{pipe} is no file: give -o FILE for what comes from it")
    if output not in (None, "-") and (several or output.endswith(("/", os.sep)) or os.path.isdir(output)):
        if inputs == ["-"]:
            raise UserError(f"{output} is a folder: give -o FILE for what comes from standard input")
        if os.path.exists(output) and not os.path.isdir(output):
            raise UserError(f"{output} is not a folder, as -o must be for several inputs")
        targets = {name: os.path.join(output, Path(name).stem + suffix) for name in inputs}
    else:
        targets = {name: output or ("-" if name == "-" else os.path.splitext(name)[0] + suffix) for name in inputs}
    sources: dict[str, str] = {}
    for name, target in targets.items():
        other = sources.setdefault(os.path.realpath(target), name)
        if other != name:
            raise UserError(f"{other} and {name} would both become {target}: do them one by one, with -o")
    return targets


def _is_pipe(name: str) -> bool:
    """Whether it is there, and neither a file nor a folder."""
    return os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)


def _real(names) -> frozenset[str]:
    """The files behind these names, links followed."""
    return frozenset(map(os.path.realpath, names))


def _check_target(args, target: str, inputs: frozenset[str]):
    """Raises: UserError where writing `target` would overwrite one of the `inputs`, as `_real` says, or what is there.

    Only a file that -o names is overwritten, unless with --force: any other may be an original, or made from another.
    """
    if target == "-":
        return
    if os.path.realpath(target) in inputs:
        raise UserError(f"{target} is an input, too: choose the output with -o")
    if target != args.output and not args.force and os.path.lexists(target):
        raise UserError(f"{target} exists: to replace it, name it with -o, or give --force")


def _write(args, target: str, data: bytes):
    if target == "-":
        cli.standard_output().write(data)
        return
    if args.output not in (None, target):  # a folder
        os.makedirs(args.output, exist_ok=True)
    atomic.write(target, data)


def _batch(names: list[str], work, jobs: int = 1) -> int:
    """cli.batch over files, of which - is standard input: work(name, path or open file, which need not be seekable)."""
    opened = functools.partial(_opened, work)
    names = list(dict.fromkeys(names))  # one that is given twice is done once
    return cli.batch(names, opened, NAME, pictures.ImageWarning, jobs=jobs, set_up=_set_up)


def _opened(work, name):
    return work(name, cli.standard_input() if name == "-" else name)


if __name__ == "__main__":
    # by its own name: the processes of --jobs do not import a package's `__main__`, so would not find what to call
    from clic_jax.__main__ import main

    main()
