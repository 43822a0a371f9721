#!/usr/bin/env bash
# Measure stone on a GPU and the CPU, in at most ten minutes: bash benchmarks/gpu.sh [RESULTS.jsonl]
#
# Needs pip install '.[train,cuda]' and, for the GPU parts, an NVIDIA GPU. Without one only the CPU parts run, and the
# last line says so. Each part has its own time limit; if one fails, this is reported, and the others still run.
# PYTHON names the interpreter (default: python), FILES the number of recordings to tag (default: 100).
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
results=${1:-gpu-results.jsonl}
files=${FILES:-100}
music=$(mktemp -d)
trap 'rm -rf "$music"' EXIT
: > "$results"
failed=0

part() { # LIMIT_SECONDS COMMAND...: append the command's JSON to the results
  local limit=$1
  shift
  echo "+ $*" >&2
  if ! timeout "$limit" "$@" | tee -a "$results"; then
    echo "failed or took longer than $limit s: $*" >&2
    failed=1
  fi
}
set -o pipefail

devices=(cpu)
if "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2> /dev/null; then
  devices+=(cuda)
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader >&2
fi
for device in "${devices[@]}"; do
  part 60 "$python" benchmarks/gpu.py parity --device "$device"
  part 60 "$python" benchmarks/gpu.py windows --device "$device"
  part 120 "$python" benchmarks/gpu.py files "$music" --device "$device" --count "$files"
done
if [ "${#devices[@]}" -eq 2 ]; then
  for precision in fp32 bf16; do
    part 90 "$python" benchmarks/training_step.py --config train/configs/ks_mode.toml --device cuda --precision "$precision" \
      --steps 5 --json
  done
else
  part 90 "$python" benchmarks/training_step.py --config train/configs/laptop_ks.toml --device cpu --steps 2 --json
  echo "no CUDA device: only the CPU parts were measured" >&2
fi
exit "$failed"
