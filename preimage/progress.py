"""How much is done, how fast, and how long the rest takes: a bar in a terminal, lines in a log file."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

_EVERY = 30.0  # seconds


class Progress(tqdm):
    """tqdm's bar; where there is no terminal, a line every 30 seconds.

    The line is such as `decoding zoo.zip:  32% 6400/20000 [00:30<01:03, 213.33images/s]`.
    """

    def __init__(self, iterable: Iterable[Any] | None = None, disable: bool | None = None, **options: Any) -> None:
        """Starts the clock; the arguments are tqdm's, and `disable=True` gives lines in a terminal too."""
        super().__init__(iterable, disable=disable, **options)
        self._options = {"prefix": options.get("desc"), "unit": options["unit"], "initial": self.n}
        self._start = self._last = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        """Counts what it passes on."""
        if not self.disable:
            yield from super().__iter__()
            return
        for item in self.iterable:
            yield item
            self.update()

    def update(self, n: float | None = 1) -> bool | None:
        """Counts what has been done since the last call."""
        if not self.disable:
            return super().update(n)
        self.n += n or 0
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            print(self.format_meter(self.n, self.total, now - self._start, ncols=0, **self._options), flush=True)
        return None
