#!/usr/bin/env bash
# EfficientNetV2-S on a GPU: training and inference tables beside what NVIDIA published for one A100.
#
#   benchmarks/gpu.sh                 on a machine with a GPU (about an hour)
#   DRY_RUN=1 benchmarks/gpu.sh       on a CPU, at tiny sizes: shows that each command runs
#
# Training at 300 px in every precision, with and without XLA, the batch doubled until the memory is
# full; inference at 384 px, batch 1 to 1024. Tables go to benchmarks/results/gpu/. PYTHON chooses
# the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=${OUT:-benchmarks/results/gpu}
if [[ -n "${DRY_RUN:-}" ]]; then
  export CUDA_VISIBLE_DEVICES=""
  arguments=(--network=tiny --train_size=32 --eval_size=32 --first_batch=2 --last_batch=2 --infer_batches=1 --steps=2)
else
  arguments=(--network=s --train_size=300 --eval_size=384 --first_batch=16 --last_batch=4096 --infer_batches=1,2,4,8,16,32,64,128,256,512,1024 --steps=20)
fi
mkdir -p "$OUT"
for precision in float32 bfloat16 float16; do
  for xla in noxla xla; do
    "$PYTHON" -m benchmarks.gpu "${arguments[@]}" --precision="$precision" "--$xla" --folder="$OUT"
  done
done
"$PYTHON" -m benchmarks.gpu --folder="$OUT" --table
