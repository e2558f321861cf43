"""Durations and sizes as people write them."""

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def duration(seconds: float) -> str:
    """Return a duration in words, such as "45 s", "12 min", "3 h 20 min" or "2 d 4 h"."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(num_bytes: float) -> str:
    """Return a size in words, such as "820 KB" or "1.4 TB", with prefixes of powers of 1000."""
    exponent = 0
    while num_bytes >= 999.5 and exponent < len(_UNITS) - 1:
        num_bytes, exponent = num_bytes / 1000, exponent + 1
    return f"{num_bytes:.3g} {_UNITS[exponent]}"
