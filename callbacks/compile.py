"""Compiled networks."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import Metric, MetricCollection

from preimage.private_api import is_compiled


class Compile(Callback):
    """Compiles the networks of a module in place with `torch.compile`, so that checkpoints keep their names.

    It takes its time at the first step of training and of evaluation, and again where a batch has another size; it pays
    in long trainings on a GPU. A VAE calls parts of its networks, which are to be named: `modules: [encoder.trunk]`.
    """

    def __init__(
        self, modules: Sequence[str] | None = None, backend: str = "inductor", mode: str | None = None
    ) -> None:
        """Chooses what to compile, and how.

        Args:
            modules: Names of submodules, as `encoder.trunk`; by default all networks that the module holds.
            backend: Backend of `torch.compile`.
            mode: Mode of `torch.compile`, as `reduce-overhead` or `max-autotune`.
        """
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
