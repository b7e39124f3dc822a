#!/usr/bin/env bash
# Generate and measure images of rendered people: first with the network of pretrained/, then with a network that is trained
# here. Needs no data set.
#
#   bash scripts/demo.sh           trains for about 10 minutes
#   bash scripts/demo.sh --quick   trains for about 1 minute
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
data=dataset/demo_people results=results/$name run=checkpoints/$name
scores=$results/metrics-$(date +%Y%m%d-%H%M%S).jsonl
# waiting threads sleep: faster beside other programs (docs/speed.md)
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
started=$SECONDS
announce() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - started)); }
generate() { $python test.py --dataroot="$data" --batchSize=8 "$@"; }
measure() {
    echo "measuring: $1"
    $python -m metrics.metrics --market --protocol=standard --metrics=l1,psnr,ssim_256,mask_ssim --gt_path="$data/test" \
        --pairs="$data/market-pairs-test.csv" --annotations="$data/market-annotation-test.csv" --out="$scores" --name="$@" >/dev/null
}
page() { $python scripts/demo_page.py --results="$results" --metrics="$scores" --training="$run"; }

announce "1/6 installing Python packages: some minutes on a new machine"
ensure_environment

announce "2/6 rendering 90 people in 4 poses each into $data"
# of another seed than the people that it was trained on
$python -m data.synthetic --dataset_mode market --seed 1 --identities 80 --test_identities 10 --poses 4 --out "$data"

announce "3/6 generating images of the 10 test people with the network of pretrained/"
generate --checkpoints_dir=pretrained --name=rendered_market --results_dir="$results/pretrained"

announce "4/6 measuring them, and two baselines that need no network"
measure pretrained --distorted_path="$results/pretrained"
measure copy_source --baseline=copy_source
measure mean_image --baseline=mean_image --fid_real_path="$data/train"
page

announce "5/6 training a network of its own for about $minutes min; watch it at $run/web/index.html"
flags=$($python scripts/demo_plan.py --name="$name" --dataroot="$data" --minutes=$minutes)
# shellcheck disable=SC2086  (several flags)
$python train.py --name="$name" --max_minutes=$minutes $flags

announce "6/6 generating and measuring the same images with that network"
epoch=ema
[ -f "$run/ema_net_G.pth" ] || epoch=latest # an earlier version's run has no averaged weights
generate --name="$name" --which_epoch="$epoch" --results_dir="$results/own"
measure own --distorted_path="$results/own"
page
announce "done"
