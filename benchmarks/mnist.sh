#!/usr/bin/env bash
# Runs every experiment of the README's MNIST table, five seeds where a mean is given, and prints the table's numbers.
#   bash benchmarks/mnist.sh                                on MNIST, into runs/mnist
#   bash benchmarks/mnist.sh configs/mnist/fashion.yaml     on Fashion-MNIST, into runs/fashion_mnist
# A run that has its test figures is skipped, so the script can be stopped and started again. ROOT is the data folder.
set -euo pipefail
cd "$(dirname "$0")/.."
overlays=("$@")
root=${ROOT:-data}
runs=runs/mnist
[ $# -eq 0 ] || runs=$(sed -n 's/^ *default_root_dir: //p' "${overlays[@]}" | tail -n 1)
preimage=${PREIMAGE:-.venv/bin/preimage}

run() { # run NAME SEED CONFIG [flag ...]
    local dir=$runs/$1/version_$2 seed=$2 config=$3
    shift 3
    if [ -f "$dir/metrics.csv" ] && head -n 1 "$dir/metrics.csv" | grep -q test/; then return; fi
    rm -rf "$dir"
    local flags=()
    for overlay in "${overlays[@]}"; do flags+=(--config "$overlay"); done
    "$preimage" fit --config "configs/mnist/$config.yaml" "${flags[@]}" "$@" --data.root "$root" \
        --seed_everything "$seed" --run_dir "$dir" --test_after_fit
}

run autoencoder 0 autoencoder
run autoencoder_all 0 autoencoder --config configs/mnist/all_images.yaml
for seed in 0 1 2 3 4; do
    for labels in scratch finetune frozen; do
        run classifier_100_$labels $seed classifier_100_$labels --data.label_seed $seed
    done
done
for seed in 0 1 2 3 4; do run classifier $seed classifier; done
for seed in 0 1 2; do
    run classifier_plain $seed classifier --config configs/mnist/plain.yaml
    run invert_classifier $seed invert_classifier \
        --model.encoder_checkpoint "classifier_plain/version_$seed/checkpoints/best.ckpt"
done
run invert_augmented_classifier 0 invert_classifier --model.encoder_checkpoint classifier/version_0/checkpoints/best.ckpt
"$(dirname "$preimage")/python" benchmarks/summary.py "$runs"/*
