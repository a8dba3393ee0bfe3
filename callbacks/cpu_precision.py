"""Half precision on processors that have no instructions for it."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from preimage.private_api import cpu_has, onednn_has


class CPUPrecision(Callback):
    """Computes in float32 where half precision is asked for on a CPU without its instructions, and says so.

    Such a CPU emulates them: convolutions take 10 to 40 times as long. A run on several machines computes in half
    precision if all of them have the instructions. The configuration keeps what was asked for, so that it is right on
    another machine too; the checkpoint's `provenance` says what was used.
    """

    def __init__(self, force: bool = False) -> None:
        """Chooses whether the machine is asked at all.

        Args:
            force: Compute in the precision that was asked for, however long it takes.
        """
        self.force = force

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replaces the precision before the model is converted to it."""
        asked = str(trainer.precision)
        if self.force or trainer.strategy.root_device.type != "cpu" or "16" not in asked:
            return
        dtype = torch.bfloat16 if asked.startswith("bf16") else torch.float16
        if not trainer.strategy.reduce_boolean_decision(has_instructions(dtype)):
            trainer.strategy.precision_plugin = Precision()
            rank_zero_info(
                f"precision: 32-true, not trainer.precision={asked}, since this CPU has no {str(dtype)[6:]}"
                " instructions and would take 10 to 40 times as long; --cpu_precision.force true takes it nevertheless"
            )


def has_instructions(dtype: torch.dtype) -> bool:
    """Whether the CPU computes in a type of half precision by itself, and torch has it do so.

    Args:
        dtype: `torch.bfloat16` or `torch.float16`.
    """
    if not torch.backends.mkldnn.is_available():
        return False  # torch's own kernels convert number by number
    if dtype == torch.float16:
        return onednn_has("fp16")
    # With any AVX-512, torch leaves it to oneDNN, which without AVX512_BF16 is slower than in float32.
    emulated = cpu_has("avx512") and not cpu_has("avx512_bf16")
    return onednn_has("bf16") and not emulated
