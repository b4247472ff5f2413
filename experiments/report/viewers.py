"""The before/after viewers as HTML; report.js brings them to life, and without it all versions stand in a column."""

from html import escape

from experiments.report.pictures import Picture, Version, embedded


def viewers(shown: list[Picture], quality: float) -> str:
    """The section of pictures, ours at `quality`. Raises: ReportError if they do not fit in one page."""
    side, uris = embedded(shown)
    intro = (
        f"<p>Our file is made at quality {quality:g}; every other codec gets the quality whose file is nearest to ours "
        "in size but not larger. Choose in the table which two versions the line divides. Drag a picture to move it, "
        "or use the arrow keys; zoom with the buttons, a double click, or the keys + and −.</p>"
        f'<p class="note">Shown are crops of at most {side}×{side} pixels around the region with the most detail, '
        "stored lossless and never resampled: at 1× a picture pixel is a CSS pixel, 2× and 4× repeat pixels. Bytes and "
        "PSNR are those of the whole file and the whole picture.</p>"
    )
    return intro + "\n".join(_viewer(i, picture, uri, side) for i, (picture, uri) in enumerate(zip(shown, uris)))


def _viewer(number: int, picture: Picture, uris: list[str], side: int) -> str:
    """One picture: the stage with all versions, the slider, zoom, and the table that chooses two."""
    height, width = (min(side, length) for length in picture.versions[0].pixels.shape[:2])
    name = escape(picture.name)
    images = "\n".join(_image(version, uri, name, width, height) for version, uri in zip(picture.versions, uris))
    right = picture.versions[2 if len(picture.versions) > 2 else 0].key
    rows = "\n".join(_row(number, version, picture.versions[1], right) for version in picture.versions)
    zoom = "".join(
        f'<button type="button" value="{times}" aria-pressed="false" aria-label="Zoom {times} times">{times}×</button>'
        for times in (1, 2, 4)
    )
    return f"""<article class="viewer" style="--w:{width}px;--h:{height}px">
<h3>{name} <span class="note">{escape(picture.why)}</span></h3>
<div class="bench">
<div>
<div class="stage" tabindex="0" role="group" aria-label="{name}: arrow keys move the picture, plus and minus zoom">
{images}
<span class="ends of-left"></span><span class="ends of-right"></span><span class="scrub" aria-hidden="true"></span>
</div>
<input class="slide" type="range" min="0" max="100" value="50" aria-label="Line between the two versions of {name}">
<div class="zoom" role="group" aria-label="Zoom">{zoom}</div>
</div>
<table class="pick">
<thead><tr><th scope="col">Version</th><th scope="col">Bytes</th><th scope="col">PSNR, dB</th>
<th scope="col" class="choice">Left</th><th scope="col" class="choice">Right</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</article>"""


def _image(version: Version, uri: str, name: str, width: int, height: int) -> str:
    badge = version.label if version.bytes is None else f"{version.label}, {version.bytes:,} B"
    return (
        f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(version.label)}: {name}" '
        f'data-version="{escape(version.key)}" data-label="{escape(badge)}">'
    )


def _row(number: int, version: Version, ours: Version, right: str) -> str:
    """A version's bytes and PSNR, and the two buttons that put it left or right."""
    too_large = version.bytes is not None and version.bytes > ours.bytes
    setting = version.setting.replace(" ", "\u00a0") + ", its smallest file, yet larger than ours" * too_large
    note = f'<br><span class="note">{escape(setting)}</span>' * bool(setting)
    size = "–" if version.bytes is None else f"{version.bytes:,}"
    quality = "–" if version.psnr is None else f"{version.psnr:.2f}"
    choices = "".join(
        f'<td class="choice"><label><input type="radio" name="{side}-{number}" value="{escape(version.key)}" '
        f'data-side="{side}" aria-label="{escape(version.label)} on the {side}"{" checked" * (version.key == key)}>'
        "</label></td>"
        for side, key in (("left", "ours"), ("right", right))
    )
    mine = ' class="mine"' * (version is ours)
    head = f'<th scope="row">{escape(version.label)}{note}</th>'
    return f"<tr{mine}>{head}<td>{size}</td><td>{quality}</td>{choices}</tr>"
