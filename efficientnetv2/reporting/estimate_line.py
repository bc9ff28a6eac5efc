"""Says in one line how long a training takes, and what memory and disk it needs."""

from __future__ import annotations

import time

from efficientnetv2.train.time_estimate import RunEstimate

_DAY = 86_400.0  # seconds
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def duration(seconds: float) -> str:
    """Formats seconds for people: ``9 s``, ``3 min 05 s``, ``2 h 03 min``."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def rounded_duration(seconds: float) -> str:
    """Formats an estimated time: ``40 s``, ``12 min``, ``2 h 10 min``, ``3 days``."""
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.0f} days"
    if seconds >= 3600:
        return duration(round(seconds / 300) * 300)
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return duration(max(5, round(seconds / 5) * 5))


def size_text(num_bytes: int) -> str:
    """Formats a number of bytes: ``96 MB``, ``1.3 GB``."""
    factor, unit = next((u for u in _UNITS if num_bytes >= u[0]), _UNITS[-1])
    value = num_bytes / factor
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def estimate_lines(estimate: RunEstimate, *, begins: bool = True, now: float | None = None) -> str:
    """Formats an estimate for a terminal; a long training on a CPU gets a second line.

    Args:
      estimate: of a training.
      begins: whether the training has begun, so that the time of its end is known.
      now: seconds since 1970; None: as the clock says.
    """
    now = time.time() if now is None else now
    end = time.strftime(
        "%H:%M" if estimate.seconds < 20 * 3600 else "%Y-%m-%d %H:%M",
        time.localtime(now + estimate.seconds),
    )
    epochs = f"{estimate.epochs} epoch{'s' if estimate.epochs != 1 else ''}"
    done = f" (done at {end})" if begins else ""
    line = (
        f"{'now ' if estimate.corrects else ''}about {rounded_duration(estimate.seconds)} for "
        f"{epochs}{done}, {size_text(estimate.memory_bytes)} of memory, "
        f"{size_text(estimate.disk_bytes)} in {estimate.folder}"
    )
    if not estimate.is_long or estimate.corrects:
        return line
    if estimate.shorter is None:
        return f"{line}\nmore than an hour on a CPU with any settings: use a GPU, or fewer images"
    other = " and another --model_dir" if begins else ""
    return (
        f"{line}\nmore than an hour on a CPU: {estimate.shorter.flags}{other} takes about "
        f"{rounded_duration(estimate.shorter.seconds)}"
    )
