"""What arguments may be, and the line that says which of them is not."""

import os
from collections.abc import Sequence
from typing import Any


def check_range(owner: str, interval: str, **values: float | Sequence[float] | None) -> None:
    """Refuses numbers outside an interval, NaN among them.

    Args:
        owner: What the arguments belong to: `model`, `data`, or the name of a class.
        interval: For example `[1, inf)`, `(0, inf)` or `[0, 1]`; a bracket takes its number in, a parenthesis does not.
        values: The arguments by name: numbers, sequences of numbers, or None for what is not given.

    Raises:
        ValueError: A number is outside.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above, below = interval[0] == "(", interval[-1] == ")"
    for name, value in values.items():
        numbers: Any = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all((low < x if above else low <= x) and (x < high if below else x <= high) for x in numbers):
            wanted = f"{'above' if above else 'at least'} {low:g}" if high == float("inf") else f"in {interval}"
            finite = " and finite" if float("inf") in numbers else ""
            raise ValueError(f"{owner}.{name}={value} must be {wanted}{finite}")


def check_inside(option: str, name: str) -> None:
    """Looks at a name that becomes part of a path.

    Args:
        option: Where the name comes from.
        name: One or more folders below another, or a file there.

    Raises:
        ValueError: It leads out of the folder, or is no name that a file may have.
    """
    parts = name.split("/")
    if not all(parts) or name.startswith("~") or {".", ".."} & set(parts) or not name.isprintable():
        raise ValueError(
            f"{option} {name[:80]!r} must stay inside the folder: give a name, as a or a/b, without .. or ~"
        )
    if max(len(os.fsencode(part)) for part in parts) > 200:
        raise ValueError(f"{option} {name[:40]!r}... is too long: give at most 200 bytes")
