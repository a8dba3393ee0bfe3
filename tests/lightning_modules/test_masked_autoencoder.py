import pytest
import torch
from torch import Tensor, nn

from lightning_modules import MaskedAutoencoder, MNISTDecoder, MNISTEncoder
from tests.conftest import QUICK, Fails


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 1, 28, 28)


def model(**kwargs: float) -> MaskedAutoencoder:
    torch.manual_seed(1)
    built = MaskedAutoencoder(MNISTEncoder(), MNISTDecoder(), **kwargs)  # type: ignore[arg-type]
    nn.init.uniform_(built.patch)
    return built


def test_the_loss_is_that_of_the_hidden_pixels_which_the_encoder_does_not_see(images: Tensor) -> None:
    masked = model(mask_ratio=0.6, patch_size=7)
    torch.manual_seed(5)
    mask = masked.draw_mask(images)
    torch.manual_seed(5)
    loss = masked.training_step((images, torch.zeros(5)), 0)
    seen, errors = images.clone(), []
    for index in range(5):
        for row in range(4):
            for column in range(4):
                rows, columns = slice(7 * row, 7 * row + 7), slice(7 * column, 7 * column + 7)
                assert mask[index, 0, rows, columns].unique().numel() == 1
                if mask[index, 0, 7 * row, 7 * column]:
                    seen[index, :, rows, columns] = masked.patch
    rebuilt = masked.decoder(masked.encoder(seen))
    for index in range(5):
        hidden = mask[index] > 0
        assert hidden.sum() == 10 * 49  # 0.6 of 16 patches, rounded
        errors.append((rebuilt[index] - images[index])[hidden].square())
    assert loss.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)
    loss.backward()
    assert masked.patch.grad is not None and masked.patch.grad.abs().sum() > 0
    assert len({tuple(part.flatten().tolist()) for part in mask}) > 1  # each image has its own


def test_an_evaluation_hides_the_same_of_an_image_in_any_batch_and_its_code_is_of_the_whole(images: Tensor) -> None:
    masked = model().eval()
    outputs = masked.validation_step((images, torch.zeros(5)), 0)
    alone = [masked.validation_step((images[i : i + 1], torch.zeros(1)), 0) for i in range(5)]
    assert torch.allclose(torch.stack([one["loss"] for one in alone]).mean(), outputs["loss"], rtol=1e-5)
    assert torch.equal(torch.cat([one["input"] for one in alone]), outputs["input"])
    assert torch.equal(outputs["code"], masked.encoder(images))
    assert not torch.equal(outputs["reconstruction"], masked.reconstruct(images))


def test_the_loss_follows_the_size_of_the_decoder(images: Tensor) -> None:
    masked = MaskedAutoencoder(MNISTEncoder(), nn.Sequential(MNISTDecoder(), nn.MaxPool2d(2)), patch_size=14)
    outputs = masked.validation_step((images, torch.zeros(5)), 0)
    hidden = masked.draw_mask(images, fixed=True)[:, :, ::2, ::2] > 0
    error = (outputs["reconstruction"] - outputs["target"]).square()
    assert outputs["loss"].item() == pytest.approx(error[hidden].mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.mask_ratio=1"], "model.mask_ratio=1.0 must be in (0, 1)"),
        (["--model.patch_size=5"], "model.patch_size=5 does not divide images of 28 x 28"),
        (["--model.freeze_encoder=true", "--model.cache_codes=true"], "set model.cache_codes false"),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(fails: Fails, flags: list[str], words: str) -> None:
    codec = ["--model=MaskedAutoencoder", "--model.encoder=MNISTEncoder", "--model.decoder=MNISTDecoder"]
    assert words in fails("fit", *QUICK, "--trainer.callbacks=null", *codec, *flags)
