#!/usr/bin/env bash
# Train on DeepFashion as in the paper. You can add flags; a later one overrides.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32 --gpu_id=0 "$@"
