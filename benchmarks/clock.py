"""What the benchmarks share: trainings whose steps are timed."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback

from preimage.__main__ import main
from preimage.evaluation.runs import figures_of

CONFIGS = Path(__file__).parent.parent / "configs"


def preimage(*args: str) -> None:
    """Runs a command in this process."""
    sys.argv = sys.argv[:1]  # else LightningCLI warns that it is given other arguments than these
    main(args)


def fit(*flags: str) -> tuple[float, dict[str, float]]:
    """Seconds of the fastest epoch of a training that is not kept, and the last value of every figure."""
    StepClock.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        preimage("fit", *flags, f"--run_dir={folder}/run", "--trainer.callbacks+=clock.StepClock")
        return min(StepClock.seconds), figures_of(Path(folder, "run"))


class StepClock(Callback):
    """Times the training batches of each epoch, from the start of the first step to the end of the last.

    It prints what it timed, behind the time of the first step, for a training in a process of its own.
    """

    seconds: ClassVar[list[float]] = []
    cpu_seconds: ClassVar[list[float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts at the first step."""
        if not trainer.global_step:
            self.first = time.time()
        if batch_idx == 0:
            self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops at the last step."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.seconds.append(time.perf_counter() - self.start)
            self.cpu_seconds.append(time.process_time() - self.cpu_start)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes one line, from rank 0."""
        if trainer.is_global_zero:
            print("clock", self.first, *self.seconds, flush=True)
