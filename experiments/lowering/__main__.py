"""Do our programs suit accelerators? Lowers the codec and the training steps for CUDA and TPU, without either.

    python -m experiments.lowering --out experiments/results/lowering/lowered.json     a quarter of an hour
    python -m experiments.lowering --all                         every combination of settings of a training step, hours
    make lowering && .venv-lowering/bin/python -m experiments.lowering --target h100 --out ...    and compiled, or v5e

Training steps are those of each preset in float32 with Adam, a step a call, on one device, and with one of these
changed at a time. --presets and --parts name less.

A program fails where it does not lower or compile, calls the host, has an array of float64, or a dot or convolution of
float32 that leaves its precision to the device. What it multiplies and calls is counted for each; compiled, also its
temporary memory and its compiler's count of FLOPs. That it would run, or how fast, no figure here says.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time

from clic_jax import config
from clic_jax.files import atomic
from experiments import cli, machine
from experiments.lowering import targets

VIRTUAL_DEVICES = 8  # of the CPU, that programs for several devices are lowered over
PLATFORMS = ("cuda", "tpu")
PARTS = ("codec", "train")


def parse(argv=None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.lowering", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--presets", nargs="+", default=list(config.PRESETS), help=f"of {', '.join(config.PRESETS)}; default all")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="the codec's programs, training steps; default both")
    add("--target", choices=targets.TARGETS, help="compile for it as well, where its compiler is installed")
    add("--all", action="store_true", help="training steps in all combinations of settings")
    add("--out", type=cli.path, metavar="FILE", help="write the table as JSON")
    args = parser.parse_args(argv)
    args.presets = [config.preset(name) for name in args.presets]
    return args


def rows_of(program, preset: str, part: str, target: str | None):
    """A row for each platform that a program is lowered for, or the one that it is compiled for."""
    from experiments.lowering import findings

    about = {"preset": preset, "part": part, "program": program.name}
    platforms = (targets.TARGETS[target].platform,) if target else PLATFORMS
    try:
        traced = program.function.trace(*program.arguments)
        counted = findings.of_traced(traced)
    except Exception as error:
        return [about | {"platform": platform, "error": one_line(error)} for platform in platforms]
    rows = []
    for platform in platforms:
        begin = time.monotonic()
        row = about | {"platform": platform} | counted
        try:
            lowered = traced.lower() if target else traced.lower(lowering_platforms=(platform,))
            row |= findings.of_lowered(lowered.as_text())
            if target:
                row |= findings.of_compiled(lowered.compile())
        except Exception as error:  # a compiler's own, of any kind: the row says it, and the others go on
            row["error"] = one_line(error)
        rows.append(row | {"seconds": round(time.monotonic() - begin, 1)})
    return rows


def one_line(error: Exception) -> str:
    """What an exception says, in one line of bearable length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def programs_of(preset: config.Config, parts, target: str | None, everything: bool):
    """(part, program) of a preset, made one by one."""
    import jax

    from clic_jax.training import steps
    from experiments.lowering import programs

    def mesh(count):
        return steps.make_mesh(targets.devices(target, count) if target else jax.devices("cpu")[:count])

    if "codec" in parts:
        for program in programs.of_codec(preset.model, mesh(1) if target else None):
            yield "codec", program
    if "train" in parts:
        for chosen, count in programs.training_configs(preset, everything):
            yield "train", programs.of_training(chosen, mesh(count))


def told(row: dict) -> str:
    """A row as a line."""
    from experiments.lowering import findings

    faults = findings.faults(row)
    calls = row.get("compiled_calls", row.get("custom_calls", {}))
    numbers = f"{row.get('gmacs', 0):.3g} GMAC" + (
        f", {row['temporary_mib']:.0f} MiB" if "temporary_mib" in row else ""
    )
    what = "; ".join(faults) or ", ".join([numbers, *(f"{name} x {count}" for name, count in calls.items())])
    mark = "FAILED" if faults else "ok"
    return f"{mark:6} {row['platform']:4} {row['preset']:8} {row['part']} {row['program']}: {what}"


def table(result: dict) -> str:
    """JSON with a line a program."""
    rows = ",\n  ".join(json.dumps(row) for row in result["programs"])
    head = json.dumps({name: value for name, value in result.items() if name != "programs"}, indent=1)
    return head.removesuffix("\n}") + ',\n "programs": [\n  ' + rows + "\n ]\n}\n"


def versions(target: str | None) -> dict[str, str]:
    """Of JAX, and of the target's compiler."""
    packages = ("jax", "jaxlib", *(targets.TARGETS[target].packages if target else ()))
    return {name: importlib.metadata.version(name) for name in packages}


def main(argv=None) -> int:
    """Runs the command line; 1 where a program fails."""
    args = parse(argv)
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={VIRTUAL_DEVICES}".strip()
    )
    if args.target:
        targets.prepare(args.target)
    else:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from experiments.lowering import findings

    if args.target:
        targets.devices(args.target, 1)  # now rather than in every row
    begin, rows = time.monotonic(), []
    for preset in args.presets:
        for part, program in programs_of(preset, args.parts, args.target, args.all):
            for row in rows_of(program, preset.name, part, args.target):
                rows.append(row)
                print(f"{time.monotonic() - begin:5.0f} s  {told(row)}", file=sys.stderr, flush=True)
            jax.clear_caches()  # or the programs of a whole table stay in memory
        failed = sum(bool(findings.faults(row)) for row in rows)
        if args.out:  # after each preset, as the next one may take an hour
            result = {"machine": machine.describe(), "versions": versions(args.target), "target": args.target}
            result |= {"failed": failed, "programs": rows}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(args.out, table(result).encode())
    print(f"{len(rows)} programs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
