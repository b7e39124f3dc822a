#!/usr/bin/env bash
# Train a network, generate images with it and measure them, all on rendered people: needs no data set and no weights.
#
#   bash scripts/demo.sh           trains for at most 10 minutes
#   bash scripts/demo.sh --quick   trains for at most 1 minute
#
# A second run reuses what the first one rendered and resumes its training. Nothing is deleted.
set -euo pipefail
minutes=10 name=demo
case "$*" in
    "") ;;
    --quick) minutes=1 name=demo_quick ;;
    *) echo "error: $*: the only flag is --quick" >&2; exit 2 ;;
esac
source "$(dirname "$0")/environment.sh"
data=dataset/demo_market results=results/$name run=checkpoints/$name
announce() { printf '\n== %s (%s)\n' "$1" "$2"; }

announce "1/5 installing Python packages" "some minutes on a new machine, otherwise nothing to do"
ensure_environment

announce "2/5 rendering 130 people in 8 poses each into $data" "1 minute"
$python -m data.synthetic --dataset_mode market --identities 120 --out "$data"

# bf16 on processors that multiply it fast
precision=$($python -c 'from util.device import select_device, fast_bf16
print("bf16" if fast_bf16(select_device(None)) else "fp32")')
common=(--name="$name" --dataset_mode=market --dataroot="$data" --precision="$precision")

announce "3/5 training a network" "at most $minutes min; watch it at $run/web/index.html"
if [ -e "$run/latest_state.pt" ]; then
    $python train.py --name="$name" --continue_train --max_minutes=$minutes
else
    # without VGG19 (lambda_content, lambda_style) training is faster and needs no download
    $python train.py "${common[@]}" --max_minutes=$minutes --batchSize=4 --niter=1 --niter_decay=2 --dis_layers=3 \
        --lambda_rec=10 --lambda_g=0.2 --lambda_content=0 --lambda_style=0
fi

announce "4/5 generating images of the 10 test people, whom the network never saw" "1 minute"
$python test.py "${common[@]}" --batchSize=8 --results_dir="$results"

announce "5/5 measuring them, and two baselines: the source photo itself and the mean training photo" "1 minute"
scores=$results/metrics-$(date +%Y%m%d-%H%M%S).jsonl
measure() {
    $python -m metrics.metrics --market --protocol=standard --metrics=l1,psnr,ssim_256,mask_ssim --gt_path="$data/test" \
        --pairs="$data/market-pairs-test.csv" --annotations="$data/market-annotation-test.csv" --out="$scores" "$@" >/dev/null
}
measure --distorted_path="$results" --name=network
measure --baseline=copy_source
measure --baseline=mean_image --fid_real_path="$data/train"
$python scripts/demo_page.py --results="$results" --metrics="$scores" --training="$run"
