#!/usr/bin/env bash
# The paper's training on DeepFashion. More flags may follow; a later one wins.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32 --gpu_id=0 "$@"
