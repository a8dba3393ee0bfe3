"""How a network is computed: compiled, with the channels last, and in which precision on a CPU."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchmetrics import Metric, MetricCollection

from preimage.private_api import has_instructions, is_compiled


class ChannelsLast(Callback):
    """Stores the weights of convolutions with the channels last, which speeds them up on CPUs and on tensor cores.

    Feature maps take over the layout of the weights, so that images need not be converted.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Converts the weights; values, shapes and checkpoints stay the same."""
        pl_module.to(memory_format=torch.channels_last)


class Compile(Callback):
    """Compiles the networks of a module in place with `torch.compile`, so that checkpoints keep their names.

    It takes its time at the first step of training and of evaluation, and again where a batch has another size; it pays
    in long trainings on a GPU. A VAE calls parts of its networks, which are to be named: `modules: [encoder.trunk]`.

    Args:
        modules: Names of submodules, as `encoder.trunk`; by default all networks that the module holds.
        backend: Backend of `torch.compile`.
        mode: Mode of `torch.compile`, as `reduce-overhead` or `max-autotune`.
    """

    def __init__(
        self, modules: Sequence[str] | None = None, backend: str = "inductor", mode: str | None = None
    ) -> None:
        if modules is not None and not modules:
            raise ValueError("Compile.modules=[] names no module: leave it out for all of them")
        self.modules = modules
        self.backend = backend
        self.mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compiles; the work itself is done at the first call."""
        if self.modules is None:
            networks = [part for part in pl_module.children() if not isinstance(part, Metric | MetricCollection)]
        else:
            known = dict(pl_module.named_modules())
            if unknown := [name for name in self.modules if name not in known]:
                raise ValueError(
                    f"Compile: {type(pl_module).__name__} has no module {unknown[0]}, only {list(known)[1:9]}"
                )
            networks = [known[name] for name in self.modules]
        for network in networks:
            if not is_compiled(network):  # a test after the training takes what is there
                network.compile(backend=self.backend, mode=self.mode)


class CPUPrecision(Callback):
    """Computes in float32 where half precision is asked for on a CPU without its instructions, and says so.

    Such a CPU emulates them: convolutions take 10 to 40 times as long. A run on several machines computes in half
    precision if all of them have the instructions. The configuration keeps what was asked for, so that it is right on
    another machine too; the checkpoint's `provenance` says what was used.

    Args:
        force: Compute in the precision that was asked for, however long it takes.
    """

    def __init__(self, force: bool = False) -> None:
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
