"""Rows of decimal numbers, from bytes to integers, exactly: the compiled half of the reader of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.compiled import compiled

# what a row is refused for
NO_REFUSAL, TOO_FEW, TOO_MANY, NO_NUMBER, NOT_WHOLE, TOO_LARGE = range(6)
# what int64 holds of any digits
MAX_DIGITS = 18
LINE_FEED = 10
TIME_COLUMN = 2


@compiled
def parse_rows(
    data: npt.NDArray[np.uint8], column_of: npt.NDArray[np.int64], scale: int, rows: npt.NDArray[np.int64]
) -> tuple[int, int, int, int]:
    """Parse whole lines of numbers while there is room, between which stand blanks, tabs, commas or semicolons.

    Parameters
    ----------
    data : ndarray of uint8
        Text that ends with a line feed.
    column_of : ndarray of int64, shape (columns,)
        Where each number of a line goes: 0 to 3 for x, y, t and p; -1 for a number to ignore.
    scale : int
        Power of ten by which times are multiplied; they are rounded to whole numbers, half away from zero.
    rows : ndarray of int64, shape (4, n), written
        Room for n rows, each along the second axis.

    Returns
    -------
    tuple of int
        Rows and bytes taken, what the next row is refused for, and the number of its column. Empty lines are skipped.
    """
    count = 0
    index = 0
    columns = len(column_of)
    while index < len(data) and count < rows.shape[1]:
        start = index
        column = 0
        while data[index] != LINE_FEED:
            if _separates(data[index]):
                index += 1
                continue
            if column == columns:
                return count, start, TOO_MANY, column
            target = column_of[column]
            power = scale if target == TIME_COLUMN else 0
            # most numbers are whole, without a sign
            begin = index
            value: Any = np.int64(0)
            refusal = NO_REFUSAL
            while 48 <= data[index] <= 57 and index - begin < MAX_DIGITS:
                value = value * 10 + np.int64(data[index] - 48)
                index += 1
            if power or index == begin or not _separates(data[index]):
                value, exact, refusal, index = _number(data, begin, power)
                if refusal == NO_REFUSAL and not exact and target != TIME_COLUMN:
                    refusal = NOT_WHOLE
            if target >= 0:
                if refusal != NO_REFUSAL:
                    return count, start, refusal, column
                rows[target, count] = value
            elif refusal == NO_NUMBER:
                # what is ignored may be anything
                while not _separates(data[index]):
                    index += 1
            column += 1
        index += 1
        if 0 < column < columns:
            return count, start, TOO_FEW, column
        count += column > 0
    return count, index, NO_REFUSAL, 0


@compiled
def _separates(byte: int) -> bool:
    """Tell whether a byte may stand behind a number."""
    return byte == LINE_FEED or byte == 32 or byte == 44 or byte == 9 or byte == 59 or byte == 13  # noqa: PLR1714 - compiles to faster code


@compiled
def _number(data: npt.NDArray[np.uint8], index: int, power: int) -> tuple[int, bool, int, int]:
    """Read one number times 10^power; return it rounded, whether that is exact, a refusal, and the byte after it."""
    negative = data[index] == 45
    if negative or data[index] == 43:
        index += 1
    mantissa: Any = np.int64(0)
    digits = 0
    seen = False
    point = False
    while True:
        byte = data[index]
        if 48 <= byte <= 57:
            seen = True
            if digits < MAX_DIGITS:
                mantissa = mantissa * 10 + np.int64(byte - 48)
                digits += mantissa > 0
                power -= point
            else:
                power += not point
        elif byte == 46 and not point:
            point = True
        else:
            break
        index += 1
    if seen and (byte == 101 or byte == 69):  # noqa: PLR1714
        index += 1
        down = data[index] == 45
        if down or data[index] == 43:
            index += 1
        exponent: Any = 0
        seen = False
        while 48 <= data[index] <= 57:
            # beyond a thousand it says no more
            exponent = min(exponent * 10 + np.int64(data[index] - 48), 1000)
            seen = True
            index += 1
        power += -exponent if down else exponent
    if not seen or not _separates(data[index]):
        return 0, True, NO_NUMBER, index
    exact = True
    if mantissa and power > 0:
        if digits + power > MAX_DIGITS:
            return 0, True, TOO_LARGE, index
        mantissa *= 10**power
    elif mantissa and power < 0:
        if -power > MAX_DIGITS:
            mantissa, exact = np.int64(0), False
        else:
            unit = 10**-power
            rest = mantissa % unit
            mantissa = mantissa // unit + (2 * rest >= unit)
            exact = rest == 0
    return -mantissa if negative else mantissa, exact, NO_REFUSAL, index
