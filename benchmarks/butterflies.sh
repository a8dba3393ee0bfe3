#!/usr/bin/env bash
# Runs every experiment of the RESULTS.md's butterflies table, three seeds each, and reports them.
#   ROOT=butterflies.zip bash benchmarks/butterflies.sh
# The classifiers of all seeds start from one VAE. What is done is skipped. About two hours.
set -euo pipefail
source "$(dirname "$0")/run.sh"
runs=${RUNS:-runs/butterflies}
configs=configs/butterflies
common=(--config configs/trainer/fast.yaml --data.root "${ROOT:-data/butterflies}")

run vae 0 --config $configs/vae.yaml
for seed in 0 1 2; do
    run linear $seed --config $configs/latent_classifier.yaml --config $configs/linear.yaml
    run latent_classifier $seed --config $configs/latent_classifier.yaml
    run finetune $seed --config $configs/finetune.yaml
    run scratch $seed --config $configs/finetune.yaml --config $configs/scratch.yaml
done
"$preimage" report "$runs" --out "$runs/report"
