#!/usr/bin/env bash
# Runs every experiment of the README's table of faces, three seeds each, and prints the table's numbers.
#   ROOT=real-fake-faces.zip bash benchmarks/faces.sh
# A run that has its test figures is skipped. Seeds can be given as arguments, to share them among processes.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${ROOT:-data/real-fake-faces.zip}
runs=${RUNS:-runs/faces}
preimage=${PREIMAGE:-.venv/bin/preimage}

run() { # run NAME SEED CONFIG [flag ...]
    local dir=$runs/$1/version_$2 seed=$2 config=$3
    shift 3
    if [ -f "$dir/metrics.csv" ] && head -n 1 "$dir/metrics.csv" | grep -q test/; then return; fi
    rm -rf "$dir"
    "$preimage" fit --config "configs/faces/$config.yaml" --data.root "$root" --seed_everything "$seed" \
        --trainer.default_root_dir "$runs" --run_dir "$dir" --test_after_fit "$@"
}

seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
for seed in "${seeds[@]}"; do
    run real_fake "$seed" real_fake
    run real_fake_detached "$seed" real_fake_detached
done
"$(dirname "$preimage")/python" benchmarks/summary.py "$runs"/*
