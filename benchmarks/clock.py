"""Callbacks that time a training, named by their import path on the command line of a benchmark."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

from lightning.pytorch import Callback


class StepClock(Callback):
    """Times the training batches of each epoch, from the start of the first step to the end of the last."""

    seconds: ClassVar[list[float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts at the first step."""
        if batch_idx == 0:
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops at the last step."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.seconds.append(time.perf_counter() - self.start)


class PrintedClock(StepClock):
    """Prints what it timed, and when the first step began: for a training in a process of its own."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Notes the time of the first step."""
        if not trainer.global_step:
            self.first = time.time()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes one line, from rank 0."""
        if trainer.is_global_zero:
            print("clock", self.first, *self.seconds, flush=True)


class CallbackClock(Callback):
    """Times the hooks of all callbacks, by the processor's time, so that other work on the machine does not count.

    Attributes:
        spent: Seconds by callback.
        whole: Seconds of the whole training, start-up excluded.
    """

    spent: ClassVar[dict[str, float]] = defaultdict(float)
    whole: ClassVar[float] = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Puts a clock around every hook that a callback has."""
        self._busy, self._start = False, time.process_time()
        for callback in trainer.callbacks:
            for name in (name for name in dir(Callback) if name.startswith("on_") and callback is not self):
                setattr(callback, name, self._timed(type(callback).__name__, getattr(callback, name)))

    def _timed(self, owner: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._busy:  # within another one's hook: a checkpoint asks all callbacks for their state
                return hook(*args, **kwargs)
            self._busy, start = True, time.process_time()
            try:
                return hook(*args, **kwargs)
            finally:
                self._busy = False
                self.spent[owner] += time.process_time() - start

        return call

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stops."""
        CallbackClock.whole = time.process_time() - self._start
