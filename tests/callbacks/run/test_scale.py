import pytest

from tests.conftest import PLAIN, Run


def announced(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("a step: ")]
    return line


def test_a_fit_says_what_a_step_takes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run("fit", *PLAIN, "--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=2", "--model.encoder_lr=0.001")
    line = announced(caplog)
    assert "batch of 32 x 1 processes x 3 accumulated = 96 images," in line
    assert "learning rate 0.008, 0.001 (OneCycle)" in line
    assert "2 steps in 2 epochs" in line


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--trainer.accumulate_grad_batches=64"], "batch of 32 x 1 processes x 3 accumulated = 96 images,"),
        (["--trainer.accumulate_grad_batches=2"], "x 2 accumulated = 64 images (the last of an epoch: 32),"),
        (["--data.val_size=3900", "--trainer.limit_train_batches=1.0"], "x 1 accumulated = 32 images (the last of an"),
        (["--data.val_size=3900", "--data.batch_size=256"], "batch of 100 x 1 processes x 1 accumulated = 100 images,"),
    ],
)
def test_no_more_images_are_announced_than_there_are(
    run: Run, caplog: pytest.LogCaptureFixture, flags: list[str], text: str
) -> None:
    with caplog.at_level("INFO"):
        run("fit", *PLAIN, *flags)
    assert text in announced(caplog)
