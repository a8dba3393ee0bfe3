"""A callback that times training steps, named by its import path on the command line of a benchmark."""

import time
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
