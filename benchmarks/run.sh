# Sourced by the scripts beside it, which set `runs`, the folder of their runs, and `common`, flags of every fit.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preimage=${PREIMAGE:-.venv/bin/preimage}

run() { # run NAME SEED flag ...: trains and tests a run, or goes on with one that was interrupted; a finished one is left
    local dir=$runs/$1/version_$2 seed=$2
    shift 2
    "$preimage" fit "$@" "${common[@]}" --trainer.default_root_dir "$runs" --seed_everything "$seed" --run_dir "$dir" \
        --test_after_fit --ckpt_path auto
}
