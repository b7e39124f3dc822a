#!/usr/bin/env bash
# From nothing to a trained network, its pictures and its scores, on drawn people: no data set, no downloaded weights.
#
#   bash scripts/demo.sh           at most 10 minutes of training
#   bash scripts/demo.sh --quick   about one
#
# Run it again and it goes on: what is drawn stays, the training continues where it stopped. Nothing is deleted.
set -euo pipefail
minutes=10 name=demo
case "$*" in
    "") ;;
    --quick) minutes=1 name=demo_quick ;;
    *) echo "error: $*: the only flag is --quick" >&2; exit 2 ;;
esac
source "$(dirname "$0")/environment.sh"
data=dataset/demo_market results=results/$name run=checkpoints/$name
say() { printf '\n== %s (%s)\n' "$1" "$2"; }

say "1/5 Python packages" "minutes on a new machine, else nothing"
ensure_environment

say "2/5 drawing 130 people in 8 poses each into $data" "a minute"
$python -m data.synthetic --dataset_mode market --identities 120 --out "$data"

# bf16 where the processor multiplies it fast
precision=$($python -c 'from util.device import select_device, fast_bf16
print("bf16" if fast_bf16(select_device(None)) else "fp32")')
common=(--name="$name" --dataset_mode=market --dataroot="$data" --precision="$precision")

say "3/5 training $run in $precision" "at most $minutes min; web page of its progress: $run/web/index.html"
if [ -e "$run/latest_state.pt" ]; then
    $python train.py --name="$name" --continue_train --max_minutes=$minutes
else
    $python train.py "${common[@]}" --max_minutes=$minutes --batchSize=4 --niter=1 --niter_decay=2 --dis_layers=3 \
        --lambda_rec=10 --lambda_g=0.2 --lambda_content=0 --lambda_style=0 # no VGG19: faster, and nothing to download
fi

say "4/5 drawing the 10 people of the test split, whom the network never saw" "a minute"
$python test.py "${common[@]}" --batchSize=8 --results_dir="$results"

say "5/5 measuring, beside two baselines: the source photo itself, and the mean training photo" "a minute"
out=$results/metrics-$(date +%Y%m%d-%H%M%S).jsonl
measure() {
    $python -m metrics.metrics --market --protocol=standard --metrics=l1,psnr,ssim_256,mask_ssim --gt_path="$data/test" \
        --pairs="$data/market-pairs-test.csv" --annotations="$data/market-annotation-test.csv" --out="$out" "$@" >/dev/null
}
measure --distorted_path="$results" --name=network
measure --baseline=copy_source
measure --baseline=mean_image --fid_real_path="$data/train"
$python scripts/demo_page.py --results="$results" --metrics="$out" --training="$run"
