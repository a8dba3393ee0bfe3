import subprocess
import sys
from pathlib import Path

from callbacks import RunLogger
from tests.conftest import ROOT


def test_mean_and_deviation_over_runs(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.90, 0.94, 0.95]):
        (tmp_path / f"classifier/version_{seed}").mkdir(parents=True)
        logger = RunLogger(tmp_path / f"classifier/version_{seed}")
        logger.log_metrics({"val/accuracy": 0.1, "epoch": 0}, 5)
        logger.log_metrics({"test/accuracy": 0.5, "epoch": 1}, 5)
        logger.log_metrics({"test/accuracy": accuracy, "epoch": 1}, 5)  # tested again: this one counts
        logger.save()
    command = [sys.executable, str(ROOT / "benchmarks/summary.py"), str(tmp_path / "classifier")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["classifier", "test/accuracy", "0.93000", "+-", "0.02646", "(3", "runs)"]
