#!/usr/bin/env bash
# Evaluate the results on DeepFashion by the paper's protocol. You can add flags; a later one overrides.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec "$python" -m metrics.metrics --gt_path=./dataset/fashion/test --distorated_path=./results/DPTN_fashion --fid_real_path=./dataset/fashion/train --name=./fashion "$@"
