#!/usr/bin/env bash
# The paper's training on DeepFashion. More flags may follow; a later one wins.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32 --gpu_id=0 "$@"
