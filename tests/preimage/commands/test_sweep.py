"""Sweeps in W&B's format, run without a server: on a program of a few lines, and on digits."""

import csv
import json
import math
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from preimage.__main__ import main
from preimage.locks import locked
from preimage.sweep_file import command_of, points_of, read_sweep
from tests.conftest import QUICK, ROOT, fork, wait_for

PROGRAM = """\
import argparse, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ("x", "y", "run_dir", "ckpt_path", "seconds"):
    parser.add_argument(f"--{name}", default="0")
options = parser.parse_args()
folder = pathlib.Path(options.run_dir)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write(f"{options.ckpt_path} {time.time()}\\n")
time.sleep(float(options.seconds))
if options.x == "3":
    sys.exit("there is no 3")
(folder / "metrics.csv").write_text(f"step,val/loss\\n0,{options.x}.5\\n1,{options.x}.25\\n2,{options.x}.75\\n")
"""


def write(folder: Path, **content: Any) -> Path:
    (folder / "train.py").write_text(PROGRAM)
    base = {"program": str(folder / "train.py"), "method": "grid", "metric": {"name": "val/loss", "goal": "minimize"}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(base | content))
    return folder / "sweep.yaml"


def sweep(file: Path, *flags: object) -> list[dict[str, str]]:
    try:
        main(["sweep", str(file), "--out", str(file.parent / "out"), *map(str, flags)])
    finally:
        rows = table(file.parent / "out")
    return rows


def table(out: Path) -> list[dict[str, str]]:
    if not (out / "sweep.csv").is_file():
        return []
    with (out / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def refused(file: Path, capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    """The line in which a sweep says why it does not begin."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        sweep(file, *flags)
    assert stop.value.code == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    return err


def starts(file: Path, index: int) -> list[str]:
    return (file.parent / f"out/point_{index:03d}/starts").read_text().splitlines()


def test_a_failed_point_is_reported_and_tried_again_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 3, 2]}, "y": {"value": "a"}})
    for attempt in (1, 2):
        with pytest.raises(SystemExit) as stop:
            sweep(file)
        assert stop.value.code == 1
        out, err = capsys.readouterr()
        assert "point_001: failed with code 1: there is no 3" in out
        assert err.strip().startswith("error: 1 of 3 points failed")
        assert len(starts(file, 0)) == len(starts(file, 2)) == 1
        assert len(starts(file, 1)) == attempt
        assert out.count(": done") == (0 if attempt == 1 else 2)
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    assert [(row["x"], row["y"]) for row in rows] == [("1", "a"), ("3", "a"), ("2", "a")]
    assert [row["val/loss"] for row in rows] == ["1.25", "", "2.25"]  # the best of each


def test_a_point_goes_on_by_itself_unless_the_user_says_from_what(tmp_path: Path) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2]}})
    sweep(file, "--index", 0)
    sweep(file, "--index", 1, "--ckpt_path", "mine.ckpt")
    assert starts(file, 0)[0].startswith("auto ")
    assert starts(file, 1)[0].startswith("mine.ckpt ")


def test_an_index_runs_one_point_by_flag_or_by_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2, 4]}})
    assert [row["status"] for row in sweep(file, "--index", 1)] == ["to do", "finished", "to do"]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert [row["status"] for row in sweep(file)] == ["to do", "finished", "finished"]
    assert "error: --index 3: the sweep has the points 0 to 2" in refused(file, capsys, "--index", 3)


DAMAGED = ["[]", "3", "{", "", "9" * 400, "\x00", '{"status": "finished", "minutes": "many"}', "[" * 2000]


def test_a_damaged_point_is_run_again_and_the_others_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2]}})
    sweep(file)
    (tmp_path / "out/point_000/metrics.csv").write_text("step,val/loss\n0,\x00\n")
    for number, text in enumerate(DAMAGED, 2):
        (tmp_path / "out/point_001/point.json").write_text(text)
        capsys.readouterr()
        rows = sweep(file)
        assert [row["status"] for row in rows] == ["finished", "finished"]
        assert [row["val/loss"] for row in rows] == ["", "2.25"]
        assert "out/point_000/metrics.csv cannot be read" in capsys.readouterr().out
        assert [len(starts(file, index)) for index in (0, 1)] == [1, number]


def test_a_damaged_record_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1]}})
    (tmp_path / "out").mkdir()
    for text in (*DAMAGED, '{"seed": 0, "points": {}}', '{"seed": "a", "points": [{}]}'):
        (tmp_path / "out/sweep.json").write_text(text)
        assert "out/sweep.json " in refused(file, capsys)
        assert (tmp_path / "out/sweep.json").read_text() == text


def test_jobs_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # as on macOS
    file = write(tmp_path, parameters={"x": {"values": [1, 2]}, "seconds": {"value": 2}})
    sweep(file, "--jobs", 2)
    first, second = (float(starts(file, index)[0].split()[1]) for index in (0, 1))
    assert abs(first - second) < 2


def test_a_cap_cuts_a_grid_that_can_grow_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, run_cap=1, parameters={"x": {"values": [1, 2, 4]}})
    assert [row["x"] for row in sweep(file)] == ["1"]
    (tmp_path / "out/point_000/metrics.csv").write_text("step,val/loss\n0,nan\n1,0.5\n2,nan\n")
    rows = sweep(file, "--count", 2)
    assert [(row["x"], row["val/loss"]) for row in rows] == [("1", "0.5"), ("2", "2.25")]  # NaN is never the best
    assert len(starts(file, 0)) == 1
    with pytest.raises(SystemExit):
        main(["sweep", str(file), "--count", "0"])
    assert "error: argument --count: give a whole number from 1 up, not 0" in capsys.readouterr().err


def test_a_random_sweep_draws_by_a_recorded_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = {"y": {"min": 0.0, "max": 1.0}}
    file = write(tmp_path, method="random", run_cap=2, parameters=parameters)
    first = [row["y"] for row in sweep(file, "--seed", 7)]
    record = json.loads((tmp_path / "out/sweep.json").read_text())
    assert record["seed"] == 7
    assert [str(point["y"]) for point in record["points"]] == first
    rows = sweep(file, "--count", 3)  # the seed is the recorded one
    assert [row["y"] for row in rows][:2] == first
    assert len({row["y"] for row in rows}) == 3
    assert len(starts(file, 0)) == 1
    assert "holds another sweep" in refused(file, capsys, "--seed", 8)


def test_ctrl_c_reaches_the_points_and_the_sweep_can_go_on(tmp_path: Path) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2]}, "seconds": {"value": 600}})
    process = fork(partial(sweep, file), tmp_path / "said")
    wait_for(tmp_path / "out/point_000/starts", process)
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    assert process.exitcode == 130
    assert (tmp_path / "said").read_text().strip().endswith("interrupted: the same command goes on")
    assert "KeyboardInterrupt" in (tmp_path / "out/point_000.log").read_text()
    assert [row["status"] for row in table(tmp_path / "out")] == ["interrupted", "to do"]


def test_two_sweeps_at_the_same_moment_share_the_points(tmp_path: Path) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2, 4]}, "seconds": {"value": 0.5}})
    processes = [fork(partial(sweep, file)) for _ in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert [len(starts(file, index)) for index in range(3)] == [1, 1, 1]
    assert [row["status"] for row in sweep(file)] == ["finished"] * 3
    assert not list(tmp_path.rglob("*.lock"))


def test_a_killed_sweep_leaves_its_point_to_its_child(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, parameters={"x": {"values": [1, 2]}, "seconds": {"value": 2}})
    process = fork(partial(sweep, file))
    wait_for(tmp_path / "out/point_000/starts", process)
    process.kill()
    process.join(60)
    assert [row["status"] for row in sweep(file)] == ["running", "finished"]
    out = capsys.readouterr().out
    assert f"point_000: process {process.pid} on " in out
    assert "1 of 2 points are left to other processes: point_000; the same command tables them" in out
    with locked(tmp_path / "out/.point_000.lock", wait=60):  # till the child has ended
        assert len(starts(file, 0)) == 1
    assert [row["status"] for row in sweep(file)] == ["finished", "finished"]


def test_grids_take_nested_parameters_and_ranges_of_integers(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"parameters": {"a": {"min": 1, "max": 3}, "b": {"value": None}}}
    content = read_sweep(write(tmp_path, parameters={"m": inner, "x": {"values": [0, 1]}}))
    points = points_of(content, None, seed=0)
    assert len(points) == 6
    assert points[1] == {"m": {"a": 1, "b": None}, "x": 1}
    assert points_of(content | {"method": "random"}, 1, seed=0)[0] in points
    inner["parameters"]["a"]["max"] = 10**12
    content = read_sweep(write(tmp_path, parameters={"x": {"min": 1, "max": 10**12}, "m": inner}))
    assert points_of(content, 2, seed=0) == [{"m": {"a": 1, "b": None}, "x": x} for x in (1, 2)]


@pytest.mark.parametrize(
    ("given", "mean", "low", "high"),
    [
        ({"min": 2, "max": 6}, 4, 2, 6),
        ({"min": 2.0, "max": 6.0}, 4, 2, 6),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, 0.5, 0, 1),
        ({"distribution": "log_uniform_values", "min": 0.01, "max": 100.0}, 99.99 / math.log(1e4), 0.01, 100),
        ({"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 8}, 504 / math.log(64), 8, 512),
        ({"distribution": "normal", "mu": 3, "sigma": 0.5}, 3, 0, 6),
        ({"values": [1, 5]}, 3, 1, 5),
    ],
)
def test_draws_are_of_their_distribution(
    tmp_path: Path, given: dict[str, Any], mean: float, low: float, high: float
) -> None:
    content = read_sweep(write(tmp_path, method="random", parameters={"x": given}))
    values = [point["x"] for point in points_of(content, 20000, seed=0)]
    assert low <= min(values)
    assert max(values) <= high
    assert sum(values) / len(values) == pytest.approx(mean, rel=0.05)
    if "q" in given:
        assert {round(value / given["q"], 6) % 1 for value in values} == {0}


WRONG = [
    {"valuess": [1]},
    {"min": 1, "max": 2.0},
    {"min": float("nan"), "max": 1.0},
    {"distribution": "beta", "a": 1, "b": 2},
    {"distribution": "q_int_uniform", "min": 1, "max": 9, "q": 4},
    {"distribution": "int_uniform", "min": 1, "max": 1.5},
    {"distribution": "uniform", "min": 2.0, "max": 1.0},
    {"distribution": "uniform", "min": "a", "max": "b"},
    {"distribution": ["uniform"], "min": 1.0, "max": 2.0},
    {"distribution": "log_uniform_values", "min": 0, "max": 1},
    {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0},
    {"distribution": "normal", "mu": 1e308, "sigma": 1e308},
    {"values": []},
    {"values": "ab"},
    {"values": [1, float("nan")]},
    {"values": [1, 2], "probabilities": [1, 2]},
    {"value": float("inf")},
    {"value": {"y": [float("nan")]}},
]


def test_a_parameter_that_is_not_known_is_named_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in WRONG:
        line = refused(write(tmp_path, parameters={"x": content}, method="random", run_cap=9), capsys)
        assert "sweep.yaml: the parameter x is {'distribution': " in line
        assert "; known are constant (value), categorical (values), int_uniform (min, max), uniform (" in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"method": "bayes"}, "sweep.yaml: method must be grid or random, since others need `wandb sweep`, not bayes"),
        ({"early_terminate": {}}, "sweep.yaml: a sweep without W&B's server knows no early_terminate, but command, "),
        ({"parameters": {"m": {"parameters": {"x": 3}}}}, "sweep.yaml: the parameter m.x is 3; known are constant"),
        ({"parameters": {"m": {"parameters": []}}}, "sweep.yaml: the parameters of m must be a mapping"),
        ({"parameters": [{"x": {"value": 1}}]}, "sweep.yaml: the parameters must be a mapping"),
        ({"run_cap": 0}, "sweep.yaml: run_cap must be a whole number"),
        ({"method": "random", "run_cap": 10**9}, "error: 1,000,000,000 points, more than 100,000: give fewer values"),
        ({"metric": {"goal": "minimize"}}, "sweep.yaml: metric must be as {name: val/loss, goal: minimize}"),
        ({"metric": {"name": ["a"]}}, "sweep.yaml: metric must be as {name: val/loss"),
        ({"metric": "val/loss"}, "sweep.yaml: metric must be as {name: val/loss"),
        ({"metric": {"name": "a", "goal": ["minimize"]}}, "sweep.yaml: metric must be as {name: val/loss"),
        ({"metric": {"name": "a", "goal": "min"}}, "sweep.yaml: metric must be as {name: val/loss"),
        (
            {"parameters": {1: {"value": 2}}},
            "must be a mapping from names, numbers in quotes, and not {1: {'value': 2}}",
        ),
        ({"program": ["a.py"]}, "sweep.yaml: program must be a file"),
        ({"command": "python train.py"}, "sweep.yaml: command must be a list of words"),
        ({"command": ["${program}", ["a"]]}, "sweep.yaml: command must be a list of words"),
        ({"command": ["${program}", "${envvar:NO_SUCH}"]}, "the sweep's command has ${envvar:NO_SUCH}; known here are"),
        (
            {"parameters": {name: {"min": 1, "max": 10000} for name in "abc"} | {"d": {"values": [1, 2, 3]}}},
            "3,000,000,000,000 points, more than 100,000: give fewer values, or take the first with",
        ),
        ({"parameters": {"x": {"min": 0.0, "max": 2.0}}}, "a grid needs values for x, not uniform"),
        ({"metrics": {}}, "knows no metrics"),
        ({"method": "random"}, "say how many points with --count N"),
        ({"command": ["${program}", "${args_json}"]}, "the sweep's command has ${args_json}"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], said: str
) -> None:
    file = write(tmp_path, **({"parameters": {"x": {"values": [1]}}} | content))
    assert said in refused(file, capsys)
    assert not (tmp_path / "out/point_000").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"program: [", "sweep.yaml cannot be read: line 1: expected the node content"),
        (b"program: a\nparameters: &a {x: *a}\nmethod: grid", "sweep.yaml cannot be read: it is nested too deep"),
        (b"[" * 2000 + b"]" * 2000, "sweep.yaml cannot be read: it is nested too deep"),
        (b"method: " + b"9" * 400, "sweep.yaml cannot be read: int too large"),
        (b"method: !!binary aGk=", "sweep.yaml cannot be read: it holds a bytes"),
        (b"\xff\xfe\x80", "sweep.yaml cannot be read: 'utf-8' codec"),
        (b"\x00", "sweep.yaml cannot be read: unacceptable character"),
        (b"", "sweep.yaml is no sweep"),
        (b"1: 2\nprogram: a\nmethod: grid\nparameters: {x: {value: 1}}", "knows no 1, but command"),
        (None, "sweep.yaml: No such file or directory"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "sweep.yaml").write_bytes(content)
    assert said in refused(tmp_path / "sweep.yaml", capsys)
    assert not (tmp_path / "out").exists()


def test_numbers_and_dates_are_what_they_look_like(tmp_path: Path) -> None:
    text = "program: a.py\nmethod: grid\nparameters:\n  lr: {values: [1e-4, 1.0e-4, 5E3, '1e-4']}\n"
    text += "  day: {value: 2024-01-01}\n  decay: {min: 1e-5, max: 1e-2}\n"
    (tmp_path / "sweep.yaml").write_text(text)
    parameters = {names: content for (names,), content in read_sweep(tmp_path / "sweep.yaml")["parameters"].items()}
    assert parameters["lr"]["values"] == [0.0001, 0.0001, 5000.0, "1e-4"]
    assert parameters["day"]["value"] == "2024-01-01"
    assert parameters["decay"] == {"min": 0.00001, "max": 0.01, "distribution": "uniform"}


def test_the_macros_of_a_command_are_those_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DIR", "a b")
    macros = [
        "${args}",
        "${args_no_hyphens}",
        "${args_no_boolean_flags}",
        "--root=${envvar:SOME_DIR}/${envvar:SOME_DIR}",
    ]
    sweep = read_sweep(write(tmp_path, command=["${env}", "run", *macros], parameters={"x": {"value": 1}}))
    words = command_of(sweep, {"lr": 0.1, "fast": True, "slow": False, "name": "a"})
    assert words == [
        "run",
        *["--lr=0.1", "--fast=true", "--slow=false", "--name=a"],
        *["lr=0.1", "fast=true", "slow=false", "name=a"],
        *["--lr=0.1", "--fast", "--name=a"],
        "--root=a b/a b",
    ]


def test_digits_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    parts = {"encoder": {"latent_dim": 3}, "decoder": {"latent_dim": 3}}
    flags = ["${env}", "${interpreter}", "${program}", "fit", *QUICK, "${args}"]
    content = {"program": str(ROOT / "main.py"), "command": flags, "parameters": {"model": {"values": [parts]}}}
    (row,) = sweep(write(tmp_path, **content), "--trainer.limit_val_batches", 1)
    assert (row["status"], row["model.encoder.latent_dim"]) == ("finished", "3")
    assert 0 < float(row["val/loss"]) < 1
    config = yaml.safe_load((tmp_path / "out/point_000/config.yaml").read_text())
    assert config["model"]["init_args"]["encoder"]["init_args"]["latent_dim"] == 3
    assert config["trainer"]["limit_val_batches"] == 1
