"""Messages in the words of the command line: ``sensor_size=(260, 346)`` of Python is ``--sensor 346x260`` here."""

from __future__ import annotations

import re

FLAGS = {
    "sensor_size": "sensor",
    "camera": "camera",
    "stream": "stream",
    "format": "format",
    "columns": "columns",
    "time_unit": "time-unit",
    "group": "group",
    "first_pixel": "first-pixel",
    "salvage": "salvage",
    "start_us": "start",
    "end_us": "end",
    "time_steps": "time-steps",
    "window": "window",
    "bin_us": "bin-us",
    "bin_events": "bin-events",
    "overlap": "overlap",
    "binary": "binary",
    "fit": "fit",
    "disorder": "disorder",
    "lag_us": "lag",
    "mean": "mean",
    "std": "std",
    "transpose": "transpose",
    "flip_x": "flip-x",
    "flip_y": "flip-y",
    "flip_polarity": "flip-polarity",
}
"""The flag of each option of Python that messages name as ``option=value``."""

# no part of a path or of an option of `import`, which is said with --set; or several values to choose from
SAID = re.compile(
    rf"(?<![\w./-])(?<!option )(?<!--set )({'|'.join(FLAGS)})=('[^']*'|\([^()]*\)|-?\d[\w.]*|N\b|True|False)"
    r"((?:(?:,| or) '[\w-]+')*)"
)


def in_flags(message: str) -> str:
    """Put the options that a message names as they are said on the command line.

    Parameters
    ----------
    message : str
        An error, or what was done.

    Returns
    -------
    str
        The same with flags.
    """
    return SAID.sub(_flag, message)


def _flag(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    flag = f"--{FLAGS[name]}"
    if value in ("True", "False"):
        return flag if value == "True" else f"--no-{FLAGS[name]}"
    parts = [part.strip() for part in value.strip("()'").split(",") if part.strip()]
    if name == "sensor_size":
        return f"{flag} WIDTHxHEIGHT" if parts == ["height", "width"] else f"{flag} {'x'.join(reversed(parts))}"
    return f"{flag} {','.join(parts)}{match[3].replace(chr(39), '')}"
