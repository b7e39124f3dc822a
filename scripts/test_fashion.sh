#!/usr/bin/env bash
# Draw the test pairs of DeepFashion as the paper did. More flags may follow; a later one wins.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" test.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1 --gpu_id=0 "$@"
