"""A short run of the demo's training reaches what docs/reproduction.md promises for it."""

import json
import os

import pandas as pd
import pytest

from data.synthetic.people import render_people
from metrics import metrics
from scripts.demo_plan import FLAGS
from tests.conftest import losses_logged

BASELINES = {"copy_source": [], "mean_image": ["--fid_real_path=people/train"]}


@pytest.mark.slow
def test_short_training_beats_both_baselines(run, call, tmp_path):
    """Two epochs of 288 pairs of 24 people: docs/reproduction.md has the spread over seeds."""
    people = tmp_path / "work/people"
    render_people(people, "market", (24, 4), photos=4, seed=1, workers=1)
    common = ("--name=short", "--dataroot=people", "--gpu_id=-1", "--nThreads=0")
    run("train", *common, *FLAGS, "--ngf=16", "--niter=1", "--niter_decay=1", "--print_freq=16",
        f"--seed={os.environ.get('SEED', 0)}")  # fmt: skip
    run("test", *common, "--dataset_mode=market", "--batchSize=8", "--results_dir=results")
    first, *_, last = (losses["app_gen_t"] for *_, losses in losses_logged("short"))

    evaluate = ("--market", "--protocol=standard", "--metrics=psnr,ssim_256", "--gt_path=people/test", "--nThreads=0")
    assert call(metrics, *evaluate, "--name=network", "--distorted_path=results", "--out=m.jsonl").returncode == 0
    for name, flags in BASELINES.items():
        assert call(metrics, *evaluate, f"--baseline={name}", *flags, "--out=m.jsonl").returncode == 0
    records = [json.loads(line) for line in (tmp_path / "work/m.jsonl").read_text().splitlines()]
    table = pd.DataFrame([{m: found["value"] for m, found in r["metrics"].items()} for r in records])
    print(os.environ.get("SEED"), first, last, table.to_dict("list"))
    network, *baselines = table.itertuples(index=False)
    for baseline in baselines:
        assert network.psnr > baseline.psnr + 0.2
    assert last < 0.6 * first
