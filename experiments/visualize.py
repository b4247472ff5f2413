"""Draws what happens inside a model on a picture of yours, as in the paper's figures.

    python -m experiments.visualize photo.jpg --model clic-compact-detail --quality 50 --out figures

    clusters_g_a_stageN.png   the centre that each position belongs to, a row a block, a column a head; g_s alike
    bits.png                  where the bits of y go
    pqf.png                   where GuidedPQF corrects y_hat, and what that does to the picture
    receptive_field.png       how far a position of y sees: the size of its gradient to the pixels around it

How evenly the centres are used is told in a line a stage (experiments.clusters). Bits are the model's own estimate. Any
model of `experiments.train` will do, also a run's folder. Needs `pip install .[report]`.
"""

import argparse
import io

import jax.numpy as jnp
import numpy as np
from PIL import Image

from clic_jax import memory, metrics, runtime
from clic_jax.checkpoints import published
from clic_jax.checkpoints.installed import DEFAULT_MODEL
from clic_jax.errors import UserError
from clic_jax.files import atomic, images
from clic_jax.quality import Quality
from clic_jax.training import evaluation
from clic_jax.training.evaluation import STRIDE
from experiments import cli, visual_maps
from experiments.clusters import health

CENTERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's, which the colour-blind can tell apart
PLACES = ("top left", "top right", "bottom left", "bottom right")  # where the centres are pooled from, in their order
FIELD_SIDE, FIELD_DRAWS = 256, 8  # of the crops, in pixels; random sums a crop
FIELD_FLOOR = 1e-6  # of the largest gradient: the dark end of the scale
LATENT_STRIDE = 16  # pixels a position of y


class NoMatplotlib(UserError):
    """matplotlib is not installed."""


def new_figure(width: float, height: float):
    """An empty figure of that size in inches. Raises: NoMatplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoMatplotlib("figures need matplotlib, which is not installed: pip install '.[report]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def enlarge(values, x):
    """A map over the padded picture, [h, w, ...], as one over the picture x itself: [H, W, ...]."""
    height, width = x.shape[:2]
    stride = -(-height // STRIDE) * STRIDE // values.shape[0]
    return np.repeat(np.repeat(np.asarray(values), stride, 0), stride, 1)[:height, :width]


def panel(axes, values, title: str, **style):
    """One picture or map without ticks; what `imshow` returns."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    return axes.imshow(values, **style)


def bar(figure, shown, axes, label: str):
    """A colour bar beside one panel."""
    figure.colorbar(shown, ax=axes, shrink=0.85).set_label(label, fontsize=8)


def draw_clusters(x, stage: str, blocks: dict):
    """The picture, and for each block (row) and head (column) the centre that each position belongs to.

    Args: x: uint8 [H, W, 3]. blocks: centre of each position [E, h, w] by the block's name.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    columns = 1 + max(len(heads) for heads in blocks.values())
    side = 1.9
    aspect = min(max(x.shape[0] / x.shape[1], 0.4), 2.5)
    figure = new_figure(side * columns, (side * aspect + 0.3) * len(blocks) + 0.7)
    grid = figure.subplots(len(blocks), columns, squeeze=False)
    for row, (name, heads) in zip(grid, blocks.items()):
        panel(row[0], x, name)
        for axes in row[1 + len(heads) :]:
            axes.axis("off")
        for e, (axes, centers) in enumerate(zip(row[1:], heads)):
            style = {"cmap": ListedColormap(CENTERS), "vmin": 0, "vmax": 3, "interpolation": "nearest"}
            panel(axes, enlarge(centers, x), f"head {e}", **style)
    height, width = next(iter(blocks.values())).shape[1:]
    figure.suptitle(f"{stage}: the best of four centres for each of {height} x {width} positions", fontsize=11)
    keys = [Patch(color=color, label=place) for color, place in zip(CENTERS, PLACES)]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, fontsize=9, frameon=False, title="centre from")
    return figure


def draw_bits(x, maps: visual_maps.Maps):
    """The picture, and the bits of y at each position."""
    figure, axes = side_by_side(x, 2)
    panel(axes[0], x, f"{x.shape[0]} x {x.shape[1]} pixels")
    bits_y, bits_z = float(maps.bits_y), float(maps.bits_z)
    bpp = (bits_y + bits_z) / (x.shape[0] * x.shape[1])
    title = f"y: {bits_y:,.0f} bits; z: {bits_z:,.0f}; together {bpp:.3f} bpp"
    shown = panel(axes[1], enlarge(maps.bits, x), title, cmap="cividis", vmin=0, interpolation="nearest")
    bar(figure, shown, axes[1], f"bits of y a position ({LATENT_STRIDE} x {LATENT_STRIDE} pixels)")
    return figure


def draw_filter(x, maps: visual_maps.Maps):
    """The correction of y_hat, how much it changes the picture, and where that helps."""
    h, w = x.shape[:2]
    plain, filtered = (np.clip(np.asarray(v)[:h, :w], 0, 1) * 255 for v in (maps.x_hat, maps.x_hat_filtered))
    before, after = (float(metrics.psnr(x, np.rint(v).astype(np.uint8))) for v in (plain, filtered))
    gain = (np.square(plain - x) - np.square(filtered - x)).mean(-1)
    reach = max(float(np.quantile(np.abs(gain), 0.99)), 1e-3)
    figure, axes = side_by_side(x, 2, rows=2)
    panel(axes[0], np.rint(filtered).astype(np.uint8), "decoded with the filter")
    style = {"cmap": "cividis", "vmin": 0, "interpolation": "nearest"}
    shown = panel(axes[1], enlarge(maps.correction, x), "correction of y_hat (r.m.s. of its channels)", **style)
    bar(figure, shown, axes[1], "quantisation steps")
    shown = panel(axes[2], np.abs(filtered - plain).mean(-1), "change of the picture", cmap="cividis", vmin=0)
    bar(figure, shown, axes[2], "grey levels")
    title = f"gain in squared error: {before:.2f} dB without, {after:.2f} dB with"
    shown = panel(axes[3], gain, title, cmap="PuOr", vmin=-reach, vmax=reach)
    bar(figure, shown, axes[3], "grey levels squared; violet: the filter helps")
    return figure


def draw_field(field: np.ndarray, count: int):
    """The size of the gradient [S, S] around the position it is of, and its share within a radius."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    side = len(field)
    corner = side // LATENT_STRIDE // 2 * LATENT_STRIDE  # of the pixels that the position stands for
    middle = corner + LATENT_STRIDE / 2 - 0.5
    edges = np.array([0, side]) - 0.5 - middle
    figure = new_figure(10, 4.6)
    axes, curve = figure.subplots(1, 2, width_ratios=(1.25, 1))
    relative = np.maximum(field / field.max(), FIELD_FLOOR)
    norm = LogNorm(FIELD_FLOOR, 1)
    shown = axes.imshow(relative, cmap="cividis", norm=norm, extent=(*edges, *edges[::-1]), interpolation="nearest")
    frame = (-LATENT_STRIDE / 2, -LATENT_STRIDE / 2)
    axes.add_patch(Rectangle(frame, LATENT_STRIDE, LATENT_STRIDE, fill=False, edgecolor="white", linewidth=0.8))
    axes.set(xlabel="pixels from the position's middle", title="r.m.s. gradient of y to the pixels")
    bar(figure, shown, axes, "share of the largest")
    offsets = np.arange(side) - middle
    radius = np.hypot(*np.meshgrid(offsets, offsets, indexing="ij"))
    order = np.argsort(radius, axis=None)
    energy = np.cumsum(np.square(field).ravel()[order])
    radii, share = radius.ravel()[order], energy / energy[-1]
    curve.plot(radii, 1 - share, color=CENTERS[0])
    half, most = (radii[np.searchsorted(share, part)] for part in (0.5, 0.99))
    curve.set(yscale="log", ylim=(FIELD_FLOOR, 1), xlim=(0, radii[-1]), xlabel="radius, pixels")
    curve.set_title(f"squared gradient outside a radius: half {half:.0f}, 1 % {most:.0f} pixels", fontsize=9)
    curve.grid(color="#dddddd", linewidth=0.6)
    crops = f"{count} crops" if count > 1 else "a crop"
    figure.suptitle(f"effective receptive field of a position of y, from {crops} of {side} x {side} pixels")
    return figure


def side_by_side(x, columns: int, rows: int = 1):
    """(figure, list of axes) for panels with the shape of x."""
    aspect = min(max(x.shape[0] / x.shape[1], 0.4), 2.5)
    figure = new_figure(5.2 * columns, (4.4 * aspect + 0.5) * rows)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()


def draw(x, maps: visual_maps.Maps, field, count: int, centers: int) -> dict:
    """Every figure by the name of its file; clusters are drawn of a model with four centres alone."""
    stages: dict[str, dict] = {}
    for name, best in maps.assignments.items() if centers == len(CENTERS) else ():
        transform, stage, block = name.split("/", 2)
        stages.setdefault(f"{transform}/{stage}", {})[block] = best
    figures = {f"clusters_{name.replace('/', '_')}": draw_clusters(x, name, blocks) for name, blocks in stages.items()}
    figures["bits"] = draw_bits(x, maps)
    if maps.correction is not None:
        figures["pqf"] = draw_filter(x, maps)
    figures["receptive_field"] = draw_field(field, count)
    return figures


def read(path: str, max_side: int) -> np.ndarray:
    """uint8 [H, W, 3], reduced where a side is longer. Raises: ImageError."""
    image = Image.fromarray(images.read_rgb(path))
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.array(image)


def parse(argv=None) -> argparse.Namespace:
    """The command line. Raises: SystemExit."""
    parser = argparse.ArgumentParser(
        prog="experiments.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="a photograph of any format that Pillow reads")
    parser.add_argument(
        "--model", type=cli.expanded, default=DEFAULT_MODEL, help="a name of `clic-jax models`, or a run's folder"
    )
    parser.add_argument("--quality", type=float, default=50, help="1 to 100, of a model with several rates")
    parser.add_argument("--max-side", type=int, default=768, help="larger photographs are reduced to this, in pixels")
    parser.add_argument("--out", type=cli.path, required=True, metavar="DIR", help="folder for the figures")
    args = parser.parse_args(argv)
    if args.max_side < 1:
        parser.error(f"argument --max-side: must be at least 1, not {args.max_side}")
    return args


def main(argv=None) -> int:
    """Runs the command line."""
    args = parse(argv)
    runtime.use_cache()
    memory.keep_memory()
    new_figure(1, 1)  # fails now rather than after the work
    quality = Quality.of(args.quality)
    x = read(args.image, args.max_side)
    config, params, model_id = published.load_published(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    lmbda = jnp.full(1, quality.lmbda(config.model.lmbdas), jnp.float32)
    padded = images.pad_to_multiple(x, STRIDE)
    maps = visual_maps.look_inside(config.model, params, padded, lmbda)
    crops = visual_maps.spread_crops(padded, FIELD_SIDE)
    field = visual_maps.receptive_field(config.model, params, crops, lmbda, FIELD_DRAWS)
    figures = draw(x, maps, field, len(crops), config.model.centers)
    for name, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
        atomic.write(args.out / f"{name}.png", file.getvalue())
    if maps.correction is None:
        print(f"{args.model} has no filter, so there is no pqf.png")
    for line in health.lines(health.of_assignments(evaluation.within(x, maps.assignments), config.model.centers)):
        print(line)
    print(f"{args.out}: {', '.join(f'{name}.png' for name in figures)}, model {model_id}")
    return 0


if __name__ == "__main__":
    cli.run(main)
