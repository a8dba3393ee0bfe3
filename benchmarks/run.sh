# Sourced by the scripts beside it, which set `runs`, the folder of their runs, and `common`, flags of every fit.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preimage=${PREIMAGE:-.venv/bin/preimage}

run() { # run NAME SEED flag ...: trains a run that has no test figures yet, or goes on with one that was interrupted
    local dir=$runs/$1/version_$2 seed=$2 resume=()
    shift 2
    if [ -f "$dir/metrics.csv" ] && head -n 1 "$dir/metrics.csv" | grep -q test/; then return; fi
    if [ -f "$dir/checkpoints/last.ckpt" ]; then resume=(--ckpt_path "$dir/checkpoints/last.ckpt"); else rm -rf "$dir"; fi
    "$preimage" fit "$@" "${common[@]}" --trainer.default_root_dir "$runs" --seed_everything "$seed" --run_dir "$dir" \
        --test_after_fit "${resume[@]}"
}
