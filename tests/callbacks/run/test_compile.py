from pathlib import Path

import pytest
import torch
from torch import Tensor

from callbacks import Compile
from datamodules import MNISTDataModule
from lightning_modules import VAE, Autoencoder, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
from tests.lightning_modules.test_base import trainer


def test_networks_are_compiled_in_place_and_checkpoints_keep_their_names(tmp_path: Path) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def fit(*callbacks: Compile) -> dict[str, Tensor]:
        torch.manual_seed(0)
        run = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0, callbacks=list(callbacks))
        run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule())
        path = tmp_path / f"{len(callbacks)}.ckpt"
        run.save_checkpoint(path)
        state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
        return state

    plain, compiled = fit(), fit(Compile(backend=backend))  # type: ignore[arg-type]
    assert len(graphs) == 2  # encoder and decoder, whole
    assert list(plain) == list(compiled)
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-6) for name in plain)


def test_parts_can_be_named_and_are_compiled_once(tmp_path: Path) -> None:
    model = VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4)
    callback = Compile(["encoder.trunk"])
    callback.setup(trainer(tmp_path), model, "fit")
    compiled = model.encoder.trunk._compiled_call_impl
    assert compiled is not None
    assert model.encoder._compiled_call_impl is None
    callback.setup(trainer(tmp_path), model, "test")
    assert model.encoder.trunk._compiled_call_impl is compiled
    with pytest.raises(ValueError, match=r"VAE has no module encoder\.trunc"):
        Compile(["encoder.trunc"]).setup(trainer(tmp_path), model, "fit")
