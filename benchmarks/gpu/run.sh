#!/bin/sh
# Measures this project on a GPU in at most eight minutes, and writes one CSV, row by row. Needs torch and timm alone.
#
#     OUT=folder benchmarks/gpu/run.sh            # the whole
#     benchmarks/gpu/run.sh --device cpu --smoke  # a minute without a GPU: that the script works, no figure of it counts
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec timeout 480 "${PYTHON:-python3}" "$root/benchmarks/gpu/measure.py" \
    --csv "${OUT:-$root/benchmarks/gpu}/gpu.csv" "$@"
