#!/usr/bin/env bash
# Train on Market-1501 as in the paper. You can add flags; a later one overrides.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" train.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --dis_layers=3 --lambda_g=5 --lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 --batchSize 32 --gpu_id=0 "$@"
