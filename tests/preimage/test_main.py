import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preimage.__main__ import COMMANDS, main
from tests.conftest import QUICK, ROOT, Fails, Run


def test_help_answers_before_lightning_is_imported() -> None:
    code = "import sys, main; main.main(['--help']); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for word in ("fit", "validate", "test", "predict", "--config"):
        assert word in out


def test_files_in_the_working_directory_do_not_stand_in_for_ours(tmp_path: Path) -> None:
    for name in ("cli", "errors", "report"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    # As an installed `preimage` starts: of ours, the path need not have more than main.
    code = "import runpy, sys; sys.argv = ['preimage', 'report', 'nowhere']; "
    code += f"runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "there is no folder nowhere" in result.stderr


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "usage: preimage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "Autoencodr"], ["Autoencodr", "did you mean Autoencoder?"]),
        (["--model.encoder", "MNISTEncodr"], ["encoder", "did you mean MNISTEncoder?"]),
        (["--model.encodr", "3"], ["model", "Autoencoder", "encodr"]),
        (["--model.encoder.latent_dim", "x"], ["encoder", "latent_dim", "int", "x"]),
        (["--data.dataset", "minst"], ["data", "dataset", "fashion_mnist", "minst"]),
        (["--data", "MNIST"], ["data", "MNIST"]),
        (["--trainer.max_epoch", "3"], ["--trainer.max_epoch"]),
        (["--trainer.max_epochs", "many"], ["trainer.max_epochs", "many"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_wrong_arguments_end_in_one_line(fails: Fails, flags: list[str], words: list[str]) -> None:
    line = fails("fit", *QUICK, *flags, code=2)
    for word in words:
        assert word in line


def test_wrong_command_names_the_right_ones(fails: Fails) -> None:
    assert "'validate'" in fails("fitt", code=2)


def test_broken_yaml_is_named(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: [\n")
    assert "line 2" in fails("fit", "--config", tmp_path / "broken.yaml", code=2)


def test_debug_lets_the_traceback_through(run: Run) -> None:
    with pytest.raises(FileNotFoundError):
        run("fit", *QUICK, "--data.dataset", "mnist", "--data.root", "nowhere", "--debug")


def test_print_config_shows_the_resolved_config(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("fit", *QUICK, "--model.encoder.latent_dim", "7", "--print_config")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "latent_dim: 7" in out
    assert "class_path: datamodules.MNISTDataModule" in out


@pytest.mark.parametrize(
    "command", ["fit", "test", *(pytest.param(name, marks=pytest.mark.slow) for name in ("validate", "predict"))]
)
def test_help_of_a_command_describes_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Name of the experiment" in out
    assert "--ckpt_path" in out


@pytest.mark.parametrize("command", ["atlas", "label-efficiency", "sweep"])
def test_help_says_where_other_flags_go(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "All other flags go to " in capsys.readouterr().out


def test_help_of_a_class_has_a_line_per_argument_and_lists_our_networks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "Classifier"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Probability mass spread over all classes" in out
    assert "lightning_modules.MNISTEncoder" in out
    assert "torch.nn.Linear" not in out


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("preimage.cli", signal.SIGINT, "interrupted\n"),
        ("preimage.cli", signal.SIGTERM, "told to end\n"),
        ("torch", signal.SIGTERM, "told to end\n"),
        ("lightning.pytorch.cli", signal.SIGINT, "interrupted\n"),
    ],
)
def test_a_signal_amid_the_imports_ends_in_one_line(name: str, number: signal.Signals, said: str) -> None:
    code = "import os, signal, sys, types; sys.argv = ['preimage', 'fit', '--help']\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"def find(name, *args): name == {name!r} and os.kill(os.getpid(), {number:d})\n"
    code += "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=find))\n"
    code += "import main; main.main()"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (128 + number, "", said)


def test_what_the_process_was_told_to_ignore_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as by nohup, or in the background of a shell
    monkeypatch.setattr("preimage.commands.layers.print_layers", lambda *args: os.kill(os.getpid(), signal.SIGINT))
    try:
        main(["layers", "--network", "alexnet"])
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


PREPARE = "datamodules.MNISTDataModule.prepare_data"
RUNS = [pytest.param(name, PREPARE, QUICK, marks=pytest.mark.slow) for name in ("validate", "test", "predict")]


@pytest.mark.parametrize(
    ("command", "moment", "flags"),
    [
        ("fit", PREPARE, QUICK),
        *RUNS,
        ("fit", "preimage.cli.PreimageCLI.add_arguments_to_parser", QUICK),
        ("fit", "callbacks.EffectiveBatch.on_sanity_check_start", QUICK),
        ("fit", "callbacks.EffectiveBatch.on_test_start", [*QUICK, "--test_after_fit"]),
        ("evaluate", "preimage.evaluation.evaluate.find_run", ["--ckpt_path", "run"]),
        ("report", "preimage.reporting.report.read_findings", ["runs"]),
        ("layers", "lightning_modules.networks.features.list_layers", ["--network", "alexnet"]),
        ("atlas", "preimage.evaluation.atlas.points.FrozenFeatures", ["--network", "alexnet", "--layers", "fc8"]),
        ("sweep", "preimage.commands.sweep.read_sweep", ["sweep.yaml"]),
        ("label-efficiency", "preimage.evaluation.label_efficiency.load_model", []),
    ],
)
@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "told to end")])
def test_a_signal_before_or_after_a_training_ends_in_one_line(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    moment: str,
    flags: list[str],
    number: signal.Signals,
    said: str,
) -> None:
    def send(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(moment, send, raising=False)
    before = [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM)]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(command, *flags) if flags[:2] == QUICK[:2] else main([command, *flags])
    assert stop.value.code == 128 + number
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == said
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM)] == before


def test_help_imports_nothing_that_takes_seconds() -> None:
    code = "import sys; from preimage.__main__ import COMMANDS, main\n"
    code += "for command in [*COMMANDS, 'predict --network alexnet']:\n"
    code += "    try: main([*command.split(), '--help'])\n"
    code += "    except SystemExit as stop: assert stop.code == 0\n"
    code += "    heavy = {'torch', 'lightning', 'matplotlib', 'sklearn', 'jsonargparse'} & set(sys.modules)\n"
    code += "    assert not heavy, (command, heavy)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for command in (*COMMANDS, "predict"):
        assert f"usage: preimage {command}" in done.stdout


def test_a_report_imports_no_torch(tmp_path: Path) -> None:
    run = tmp_path / "runs/mnist/vae/version_0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: vae\ntrainer: {max_epochs: 1}\n")
    (run / "metrics.csv").write_text("epoch,step,val/mse,test/mse\n0,9,0.2,\n1,9,,0.1\n")
    code = "import sys; from preimage.__main__ import main; main(['report', 'runs']); import preimage.runs\n"
    code += "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "0.1000" in (tmp_path / "report/report.md").read_text()


def test_another_package_of_the_same_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks/__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", "from preimage.__main__ import main; main(['fit', '--help'])"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        f"error: the package callbacks of preimage is in {ROOT}, and Python finds {tmp_path}/callbacks"
    )
