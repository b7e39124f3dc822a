#!/usr/bin/env bash
# Draw the test pairs of Market-1501 as the paper did. More flags may follow; a later one wins.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" test.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --which_epoch latest --results_dir=./results/DPTN_market --batchSize 1 --gpu_id=0 "$@"
