"""What a difference in bits is worth, in bytes and money at equal quality, for the reader's own volumes and prices.

Every assumption is a field of `Volumes`, and `assumptions` says them all on the page.
"""

import dataclasses

from experiments.report.results import Result, rate_at

MILLION, GB = 10**6, 10**9
STORED_MONTHS = sum(range(1, 13))  # a month's pictures are kept to the end of the year: 12 months those of the first


@dataclasses.dataclass(frozen=True)
class Volumes:
    """The reader's pictures and prices. Those given here are round examples, nobody's offer."""

    psnr: float  # dB, the quality at which sizes are compared
    pixels: float  # of one picture
    pictures_per_month: float = 1e6
    storage_price: float = 0.02  # of a GB for a month
    transfer_price: float = 0.05  # of a GB sent
    downloads: float = 10  # of each picture, all in all
    compute_price: float = 0.05  # of an hour of a machine like the one that was measured
    decoders: float = 1000  # that fetch new weights once
    currency: str = "USD"


@dataclasses.dataclass(frozen=True)
class Cost:
    """One codec at the chosen quality; money in `Volumes.currency`."""

    result: Result
    bpp: float
    gigabytes: float  # of a million pictures
    storage: float  # money for a million pictures, one month
    transfer: float  # money for the downloads of a million pictures
    encoding: float  # money for compressing a million pictures once
    hours: float  # machine hours for compressing them
    year: float  # money in the first year of the reader's volume


def cost(result: Result, volumes: Volumes) -> Cost | None:
    """What a codec costs at `volumes.psnr`; None where its curve was not measured there."""
    part = result.rising
    bpp = rate_at(result.bpp[part], result.psnr[part], volumes.psnr)
    if bpp is None:
        return None
    gigabytes = bpp * volumes.pixels / 8 * MILLION / GB
    seconds = rate_at(result.encoding_time[part], result.psnr[part], volumes.psnr) * volumes.pixels / result.pixels
    hours = seconds * MILLION / 3600
    storage, transfer = gigabytes * volumes.storage_price, gigabytes * volumes.downloads * volumes.transfer_price
    encoding = hours * volumes.compute_price
    year = volumes.pictures_per_month / MILLION * (STORED_MONTHS * storage + 12 * (transfer + encoding))
    return Cost(result, bpp, gigabytes, storage, transfer, encoding, hours, year)


def sentence(mine: Cost, theirs: Cost, volumes: Volumes) -> str:
    """Ours against one codec: bytes first, then money with the time of encoding counted, win or lose."""
    size, money = theirs.gigabytes - mine.gigabytes, theirs.year - mine.year
    ratio = 100 * abs(mine.bpp / theirs.bpp - 1)
    amount = f"{abs(size):,.1f} GB per million pictures ({ratio:.0f}\u00a0%)"
    price = f"{abs(money):,.0f} {volumes.currency}"
    label = theirs.result.label
    if size >= 0 and money < 0:
        return f"Against {label} we save {amount}, but the first year costs {price} more, as encoding takes longer."
    if size >= 0:
        return f"Against {label} we save {amount} and {price} in the first year."
    year = f"and {price} more in the first year" if money < 0 else f"though {price} less in the first year"
    return f"We lose to {label}: {amount} more, {year}."


def assumptions(volumes: Volumes, own_psnr: bool) -> list[str]:
    """Sentences that say on what the figures rest."""
    v = volumes
    chosen = "as you asked" if own_psnr else "the middle of what all codecs reach; choose another with --psnr"
    return [
        f"Equal quality means a mean RGB PSNR of {v.psnr:g} dB ({chosen}). Rates between measured points are "
        "interpolated (PCHIP of the logarithm of the rate).",
        f"A picture has {v.pixels / 1e6:.3g} megapixels (--megapixels) and is as hard to compress as the mean of those "
        "measured. A GB is 10⁹ bytes.",
        f"Storage costs {v.storage_price:g} {v.currency} per GB and month (--storage-price), transfer "
        f"{v.transfer_price:g} {v.currency} per GB (--transfer-price), and each picture is downloaded {v.downloads:g} "
        "times in all (--downloads-per-picture).",
        f"Compressing costs {v.compute_price:g} {v.currency} per machine hour (--compute-price) at the measured "
        "seconds per pixel, on the machine and at the load of this measurement; yours will differ. Decoding happens "
        "at the reader's and is not counted.",
        f"The first year: {v.pictures_per_month:,.0f} new pictures a month (--pictures-per-month), each kept from the "
        "month it arrives to the end of the year. Originals, requests and the change-over are not counted.",
    ]


def adapting(volumes: Volumes, weights: int, seconds: float, machine: str) -> list[str]:
    """Sentences that say on what the break-even of an adapted model rests."""
    v = volumes
    return [
        f"Adapting took {seconds / 3600:.2f} hours of one machine ({machine}), with compiling and publishing, whatever "
        f"else it did, at {v.compute_price:g} {v.currency} an hour (--compute-price).",
        f"{v.decoders:,.0f} decoders (--decoders) fetch {weights / 1e6:.1f} MB of new weights once, at "
        f"{v.transfer_price:g} {v.currency} per GB (--transfer-price); one copy is stored for a year at "
        f"{v.storage_price:g} {v.currency} per GB and month (--storage-price).",
        f"A picture of {v.pixels / 1e6:.3g} megapixels at {v.psnr:g} dB is stored to the end of the first year, and "
        f"sent {v.downloads:g} times (--downloads-per-picture).",
        "Pictures coded before stay as they are, and their decoders keep the old weights. Labour is not counted.",
    ]
