import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import MNISTDataModule
from preimage.cli import PreimageCLI
from tests.conftest import QUICK, Fails

pytestmark = pytest.mark.usefixtures("elsewhere")
LIMITS = [f"limit_{split}_batches" for split in ("train", "val", "test", "predict")]
LIMITS += ["overfit_batches", "val_check_interval"]


class Digits(MNISTDataModule):
    """Takes numbers of both kinds in a user's own way."""

    def __init__(
        self,
        one: float | int = 5,
        several: list[float | int] | None = None,
        other: "dict[str, float | int | None] | float | str" = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.numbers = [one, *(several or []), *(other.values() if isinstance(other, dict) else [other])]


def cli(monkeypatch: pytest.MonkeyPatch, *flags: object) -> PreimageCLI:
    monkeypatch.setattr("sys.argv", ["preimage"])
    monkeypatch.setattr(PreimageCLI, "_run_subcommand", lambda self, name: None)
    return PreimageCLI(["fit", *QUICK, *map(str, flags)])


@pytest.mark.parametrize("value", ["1", "1.0", "0.5"])
def test_an_integer_stays_one_by_flag_and_file_and_in_the_saved_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    file, saved = tmp_path / "given.yaml", tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"trainer": {name: yaml.safe_load(value) for name in LIMITS}}))
    by_flags = cli(monkeypatch, *(f"--trainer.{name}={value}" for name in LIMITS))
    saved.write_text(by_flags.config_text)
    for one in (by_flags, cli(monkeypatch, "--config", file), cli(monkeypatch, "--config", saved)):
        for name in LIMITS:
            number = one.config.fit.trainer[name]
            assert (type(number), number) == (type(yaml.safe_load(value)), float(value)), name


def test_a_users_own_numbers_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [
        "--data=tests.preimage.test_parsing.Digits",
        "--data.one=1",
        "--data.several=[1, 2.0]",
        '--data.other={"a": 3}',
    ]
    assert repr(cli(monkeypatch, *flags).datamodule.numbers) == "[1, 1, 2.0, 3]"


def test_a_list_of_classes_takes_nothing_over_from_the_one_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [{"class_path": "ModelCheckpoint"}, {"class_path": "LatentProjection"}]
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": kinds}}))
    for flags in (["--config", tmp_path / "two.yaml"], [f"--trainer.callbacks={json.dumps(kinds)}"]):
        one, other = cli(monkeypatch, *flags).config.fit.trainer.callbacks
        assert one.init_args.every_n_epochs is None  # and not that of the second of the two in quickstart.yaml
        assert other.init_args.every_n_epochs == 5


def test_a_number_that_is_none_is_not_taken_for_a_class(fails: Fails) -> None:
    line = fails("fit", *QUICK, "--model.optimizer.lr=fast", code=2)
    assert "Expected a float. Got value: fast" in line
    assert "class fast" not in line
