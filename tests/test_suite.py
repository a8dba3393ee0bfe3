import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The command line with short trainings; what it is called with goes to a log.
SHORT = f"""#!/usr/bin/env bash
echo "$1" >> "$(dirname "$0")/calls"
limits=()
if [ "$1" = fit ]; then limits=(--trainer.limit_train_batches 3 --trainer.max_epochs 1); fi
if [ "$1" = evaluate ]; then limits=(--labels_per_class 1 --images 100); fi
exec {sys.executable} {ROOT}/main.py "$@" "${{limits[@]}}"
"""


@pytest.mark.slow
def test_the_small_suite_trains_evaluates_and_reports(tmp_path: Path) -> None:
    short = tmp_path / "preimage.sh"
    short.write_text(SHORT)
    short.chmod(0o755)
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- report:begin -->\n<!-- report:end -->\n")
    paths = {"PREIMAGE": str(short), "RUNS": f"{tmp_path}/runs", "OUT": f"{tmp_path}/report", "README": str(readme)}

    def suite() -> list[str]:
        (tmp_path / "calls").write_text("")
        command = ["bash", str(ROOT / "benchmarks/suite.sh"), "small"]
        subprocess.run(command, env=os.environ | paths, cwd=tmp_path, check=True, capture_output=True, timeout=500)
        return (tmp_path / "calls").read_text().split()

    assert suite() == ["fit"] * 8 + ["evaluate", "report"]
    with (tmp_path / "report/results.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"autoencoder", "vae", "classifier_plain", "invert_classifier"}
    assert all(row["seeds"] == "0 1" and float(row["training_minutes"]) > 0 for row in rows.values())
    assert {name for name, row in rows.items() if row["reconstruction/mse"]} == set(rows) - {"classifier_plain"}
    assert {name for name, row in rows.items() if row["reading/linear/accuracy"]} == set(rows) - {"invert_classifier"}
    fid = next(key for key in rows["vae"] if key.startswith("generation/fid/classifier_plain ("))
    assert {name for name, row in rows.items() if row[fid]} == {"vae"}
    assert "| vae | 2 |" in readme.read_text()


def test_the_suite_can_be_given_again_and_holds_no_logic_of_its_own(tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    paths = {"PREIMAGE": str(stub), "RUNS": "R", "ROOT": "a b.zip"}
    command = ["bash", str(ROOT / "benchmarks/suite.sh"), "faces", "3"]
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
    expected = []
    for name in ("real_fake", "real_fake_detached"):
        expected += ["fit", f"--config=configs/faces/{name}.yaml", "--data.root", "a b.zip"]
        expected += ["--trainer.default_root_dir", "R/faces", "--seed_everything", "3"]
        expected += ["--run_dir", f"R/faces/{name}/version_3", "--test_after_fit", "--ckpt_path", "auto"]
    expected += ["report", "R/faces", "--out", "R/faces/report"]
    assert done.stdout.splitlines() == expected, done.stderr
