"""What is found in a traced, a lowered and a compiled program: what it calls, what it declares, what it takes."""

import collections
import re

import jax
import jax.numpy as jnp
from jax import lax

from experiments import complexity

_PRODUCTS = ("dot_general", "conv_general_dilated")


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it, those of `lax.platform_dependent` for all platforms."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def kinds_of(equation) -> list[str]:
    """Which precision a dot or convolution of floats declares, in a list of one; none for anything else.

    "exact" (HIGHEST), "quick" (DEFAULT, or operands below float32, which have no more digits than are multiplied), or
    "undeclared": what the device makes of float32 by itself.
    """
    operand = equation.invars[0].aval.dtype if equation.primitive.name in _PRODUCTS else jnp.int32
    if not jnp.issubdtype(operand, jnp.floating):
        return []
    declared = equation.params["precision"]
    if declared is not None and all(p == lax.Precision.HIGHEST for p in declared):
        return ["exact"]
    return ["quick" if declared is not None or jnp.finfo(operand).bits < 32 else "undeclared"]


def of_traced(traced) -> dict:
    """Multiply-accumulates and declared precisions of a `jax.stages.Traced`; a loop of unknown length counts once."""
    jaxpr = traced.jaxpr.jaxpr
    kinds = collections.Counter(kind for equation in equations(jaxpr) for kind in kinds_of(equation))
    declared = {kind: kinds[kind] for kind in ("exact", "quick", "undeclared")}
    return {"gmacs": round(complexity.count(jaxpr) / 1e9, 3)} | declared


def of_lowered(text: str) -> dict:
    """Custom calls by name, host callbacks among them, and arrays of float64, in the StableHLO of a program."""
    calls = collections.Counter(re.findall(r"stablehlo\.custom_call @([\w.$]+)", text))
    return {
        "custom_calls": dict(sorted(calls.items())),
        "host_callbacks": sum(count for name, count in calls.items() if "callback" in name),
        "float64": len(re.findall(r"\bf64\b|xf64\b", text)),
    }


def of_compiled(compiled: jax.stages.Compiled) -> dict:
    """Temporary memory, FLOPs and calls of a compiled program, as its compiler counts them (None: it does not)."""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    flops = (compiled.cost_analysis() or {}).get("flops")
    return {
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "gflops": None if flops is None else round(flops / 1e9, 3),
        "compiled_calls": dict(sorted(calls.items())),
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", text)),
    }


def faults(row: dict) -> list[str]:
    """What must not be in any program of ours, a phrase each; none is good."""
    found = [f"{row[name]} {what}" for name, what in FAULTS.items() if row.get(name)]
    return [row["error"]] if row.get("error") else found


FAULTS = {
    "undeclared": "dots or convolutions without a declared precision",
    "float64": "arrays of float64",
    "host_callbacks": "calls of the host",
}
