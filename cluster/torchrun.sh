#!/bin/bash
# A training on several machines without a scheduler; the same line on each, but for NODE_RANK:
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash cluster/torchrun.sh fit --config configs/butterflies/vae.yaml --config configs/trainer/ddp.yaml
# NPROC is the number of processes on each machine, by default its GPUs.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -d "$root/.venv" ]; then source "$root/.venv/bin/activate"; fi
NPROC=${NPROC:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
if [ "$NPROC" -lt 1 ]; then
  echo "error: no GPU here; set NPROC to the number of processes (with configs/trainer/cpu.yaml behind ddp.yaml)" >&2
  exit 2
fi
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --nproc-per-node="$NPROC" \
  --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${MASTER_PORT:-29500}" "$root/main.py" "$@" \
  --trainer.num_nodes="${NNODES:-1}" --trainer.devices="$NPROC"
