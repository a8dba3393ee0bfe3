from pathlib import Path

import pytest
import yaml

from preimage.configs import chain, with_bases, without_base
from tests.conftest import QUICK, ROOT, Fails, Run


def test_a_config_is_read_behind_the_ones_it_varies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    one, two, three = tmp_path / "one.yaml", tmp_path / "deep/two.yaml", tmp_path / "deep/three.yaml"
    one.write_text("name: one\n")
    two.write_text("# about it\nbase: ../one.yaml  # which is above\nname: two\n")
    three.write_text('base: "two.yaml"\nname: three\n')
    names = [str(path) for path in chain(three)]
    assert [Path(name).resolve() for name in names] == [one, two, three]
    read = [f"--config={name}" for name in names]
    assert with_bases(["fit", f"--config={three}", "--name=x"]) == ["fit", *read, "--name=x"]
    assert with_bases(["fit", "-c", str(three), "--config", str(one)]) == ["fit", *read, f"--config={one}"]
    assert with_bases(["fit", f"-c{three}"]) == ["fit", *read]
    assert without_base(two.read_text()) == "# about it\n\nname: two\n"
    assert without_base("data:\n  base: kept\n") == "data:\n  base: kept\n"


@pytest.mark.parametrize(
    "line", ['"base": a#1.yaml', "base : a#1.yaml\r", "\ufeffbase: 'a#1.yaml' # it", "---\nbase: a#1.yaml"]
)
def test_a_base_may_be_written_in_all_the_ways_of_a_key(tmp_path: Path, line: str) -> None:
    (tmp_path / "a#1.yaml").write_text("name: one\n")
    (tmp_path / "b.yaml").write_text(f"{line}\n", newline="")
    assert chain(tmp_path / "b.yaml") == [tmp_path / "a#1.yaml", tmp_path / "b.yaml"]
    assert "base" not in without_base((tmp_path / "b.yaml").read_text())


def test_a_config_may_set_nothing(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.yaml").write_text(f"# as it is\nbase: {ROOT / 'configs/quickstart.yaml'}\n")
    with pytest.raises(SystemExit) as stop:
        run("fit", "--config", tmp_path / "b.yaml", "--print_config")
    assert stop.value.code == 0
    assert "name: quickstart" in capsys.readouterr().out


def test_a_variation_trains_what_it_says_on_its_base(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {ROOT / 'configs/quickstart.yaml'}\nname: mine\ndata: {{init_args: {{batch_size: 16}}}}\n")
    flags = [flag for flag in QUICK if "quickstart" not in flag and flag != "--config"]
    written = run("fit", "--config", path, *flags, "--trainer.callbacks=null") / "mine/version_0/config.yaml"
    config = yaml.safe_load(written.read_text())
    assert "base" not in config
    assert config["data"]["init_args"]["batch_size"] == 16
    assert config["model"]["class_path"] == "lightning_modules.Autoencoder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: nowhere.yaml\n", ["mine.yaml: its base", "nowhere.yaml is not there"]),
        ("base: mine.yaml\n", ["mine.yaml", "varies it in turn"]),
        ("base:\n", ["mine.yaml: its base", "is not there"]),
    ],
)
def test_a_base_that_is_none_is_named(fails: Fails, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    line = fails("fit", "--config", tmp_path / "mine.yaml")
    assert all(word in line for word in words)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_config_is_more_than_two_files_from_its_base(path: Path) -> None:
    assert len(chain(path)) <= 3
