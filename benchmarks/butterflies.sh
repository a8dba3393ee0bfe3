#!/usr/bin/env bash
# Runs every experiment of the README's butterflies table, three seeds each, and prints the table's numbers.
#   ROOT=butterflies.zip bash benchmarks/butterflies.sh
# The classifiers of all seeds start from one VAE. A run that has its test figures is skipped. About two hours.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${ROOT:-data/butterflies}
runs=${RUNS:-runs/butterflies}
preimage=${PREIMAGE:-.venv/bin/preimage}

run() { # run NAME SEED CONFIG [flag ...]
    local name=$1 seed=$2 dir=$runs/$1/version_$2
    shift 2
    if [ -f "$dir/metrics.csv" ] && head -n 1 "$dir/metrics.csv" | grep -q test/; then return; fi
    rm -rf "$dir"
    local flags=()
    for config in "$@"; do flags+=(--config "configs/$config.yaml"); done
    "$preimage" fit "${flags[@]}" --config configs/trainer/fast.yaml --data.root "$root" --seed_everything "$seed" \
        --trainer.default_root_dir "$runs" --run_dir "$dir" --test_after_fit
}

run vae 0 butterflies/vae
for seed in 0 1 2; do
    run linear $seed butterflies/latent_classifier butterflies/linear
    run latent_classifier $seed butterflies/latent_classifier
    run finetune $seed butterflies/finetune
    run scratch $seed butterflies/finetune butterflies/scratch
done
"$(dirname "$preimage")/python" benchmarks/summary.py "$runs"/*
