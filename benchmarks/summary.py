"""Prints mean and standard deviation of the test metrics over the runs of each experiment."""

import sys
from collections import defaultdict
from pathlib import Path

from files import read_metrics
from reporting.runs import mean_and_deviation


def summarise(experiment: Path) -> dict[str, list[float]]:
    """Collects the test metrics of an experiment.

    Args:
        experiment: Folder with runs `version_N`.

    Returns:
        One value per run by metric, the last one where a run was tested more than once.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for path in sorted(experiment.glob("version_*/metrics.csv")):
        final = {key: value for row in read_metrics(path) for key, value in row.items() if key.startswith("test/")}
        for key, value in final.items():
            values[key].append(value)
    return values


def main() -> None:
    """Prints a line per experiment and metric."""
    for folder in map(Path, sys.argv[1:]):
        for metric, values in sorted(summarise(folder).items()):
            if "class_" in metric:
                continue
            mean, deviation = mean_and_deviation(values)
            print(f"{folder.name:28} {metric:14} {mean:.5f} +- {deviation or 0:.5f} ({len(values)} runs)")


if __name__ == "__main__":
    main()
