#!/usr/bin/env bash
# Runs every experiment of the RESULTS.md's table of faces, three seeds each, and reports them.
#   ROOT=real-fake-faces.zip bash benchmarks/faces.sh
# What is done is skipped. Seeds can be given as arguments, to share them among processes.
set -euo pipefail
source "$(dirname "$0")/run.sh"
runs=${RUNS:-runs/faces}
common=(--data.root "${ROOT:-data/real-fake-faces.zip}")

seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
for seed in "${seeds[@]}"; do
    run real_fake "$seed" --config configs/faces/real_fake.yaml
    run real_fake_detached "$seed" --config configs/faces/real_fake_detached.yaml
done
"$preimage" report "$runs" --out "$runs/report"
