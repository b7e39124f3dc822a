#!/usr/bin/env bash
# Generate the test images of DeepFashion as in the paper. You can add flags; a later one overrides.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" test.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1 --gpu_id=0 "$@"
