#!/usr/bin/env bash
# Generate the test images of Market-1501 as in the paper. You can add flags; a later one overrides.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" test.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --which_epoch latest --results_dir=./results/DPTN_market --batchSize 1 --gpu_id=0 "$@"
