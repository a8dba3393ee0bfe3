import pytest
import torch

from lightning_modules.networks import inverters
from preimage.evaluation.atlas.decoders import decoder_for, fair_decoder, parameters_of

SHAPES = [(64, 64, 64), (64, 31, 31), (512, 8, 8), (16, 32, 32), (192, 4, 4), (1000,), (512,), (197, 24)]


@pytest.mark.parametrize(
    ("shape", "size"), [((256, 6, 6), 48), ((192, 13, 13), 52), ((64, 31, 31), 62), ((64, 63, 63), 63), ((1000,), 64)]
)
def test_decoders_get_as_close_to_the_wanted_size_as_doubling_can(shape: tuple[int, ...], size: int) -> None:
    decoder = decoder_for(shape, 64, 0.5)
    assert decoder["init_args"]["image_size"] == size
    assert decoder["class_path"] == ("ConvInverter" if len(shape) == 3 else "FullyConnectedInverter")


@pytest.mark.parametrize("shape", [(197, 24), (8, 8, 192), (16, 4, 2), (32, 8, 8), (16,)])
def test_decoders_fit_tokens_and_channels_last(shape: tuple[int, ...]) -> None:
    config = decoder_for(shape, 32, 0.03)
    decoder = getattr(inverters, config["class_path"])(**config["init_args"])
    assert decoder(torch.rand(2, *shape)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("budget", [300_000, 1_000_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fair_decoder_has_the_budget_within_a_tenth(shape: tuple[int, ...], budget: int) -> None:
    decoder = fair_decoder("layer", shape, 64, budget)
    built = getattr(inverters, decoder["class_path"])(**decoder["init_args"])
    count = sum(parameter.numel() for parameter in built.parameters())
    assert count == parameters_of(decoder) == pytest.approx(budget, rel=0.1)


def test_a_decoder_of_gray_images_has_one_channel_and_the_budget() -> None:
    decoder = fair_decoder("layer", (32, 6, 6), 28, 20_000, channels=1)
    built = getattr(inverters, decoder["class_path"])(**decoder["init_args"])
    assert built(torch.rand(2, 32, 6, 6)).shape == (2, 1, 24, 24)
    assert parameters_of(decoder) == sum(part.numel() for part in built.parameters()) == pytest.approx(20_000, rel=0.1)


def test_a_decoder_that_cannot_have_the_budget_is_told(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO"):
        decoder = fair_decoder("fc", (25088,), 64, 1_000)
    assert parameters_of(decoder) > 100_000
    assert "fc: no decoder of 25088 has about 1,000 parameters" in caplog.text + capsys.readouterr().err
