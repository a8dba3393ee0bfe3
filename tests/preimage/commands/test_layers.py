import pytest

from preimage.__main__ import main


def test_layers_are_listed_with_shapes_and_short_names(capsys: pytest.CaptureFixture[str]) -> None:
    main(["layers", "--network", "alexnet", "--image_size", "128"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["x             3 x 128 x 128  map", "features.0    64 x 31 x 31   map"]
    assert "features.5    192 x 7 x 7    map     conv2" in lines
    assert lines[-1] == "classifier.6  1000           vector  classifier, fc8"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--network", "alxnet"], 1, "torchvision has no network alxnet: the nearest are alexnet"),
        (["--network", "alexnet", "--image_size", "16"], 1, "does not take images of 3 x 16 x 16"),
        (["--network", "alexnet", "--image_size", "big"], 2, "big"),
        ([], 2, "required: --network (see preimage layers --help)"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], code: int, words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["layers", *flags])
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_help_describes_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["layers", "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the layers of a network, and the shapes of their features" in out
    assert "name of a network of torchvision, as alexnet; timm/NAME" in out


@pytest.mark.parametrize("size", ["-5", "0", "many", "1.5", "9" * 5000])
def test_a_wrong_size_is_one_line(capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["layers", "--network", "alexnet", "--image_size", size])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --image_size: give a whole number from 1 up, not ")
