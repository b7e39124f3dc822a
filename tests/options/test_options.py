"""Strict parsing: every flag is read, every choice constructs, every typo is refused with status 2."""

import ast
import json
import re
import sys
from argparse import BooleanOptionalAction
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from data import dataset_names, find_dataset
from models import create_model, find_model, model_names
from models.dptn_model import DPTNModel
from models.losses import GAN_MODES
from models.networks import INITIALIZERS, NORMS
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.helpers import CPU, REPOSITORY, TINY, train_options
from util.errors import UserError

PARSERS = {"train": TrainOptions, "test": TestOptions}
PUBLISHED_COMMANDS = {
    "train": [
        "--name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32 "
        "--gpu_id=0",
        "--name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --dis_layers=3 --lambda_g=5 "
        "--lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 --batchSize 32 --gpu_id=0",
    ],
    "test": [
        "--name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --which_epoch latest "
        "--results_dir ./results/DPTN_fashion --batchSize 1 --gpu_id=0",
        "--name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --which_epoch latest "
        "--results_dir=./results/DPTN_market --batchSize 1 --gpu_id=0",
    ],
}


def flags_read() -> set[str]:
    """Every NAME in `opt.NAME` of the code."""
    names = set()
    folders = ("data", "metrics", "models", "util")
    for path in chain(REPOSITORY.glob("*.py"), *(REPOSITORY.glob(f"{folder}/*.py") for folder in folders)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if owner == "opt":
                    names.add(node.attr)
    return names


@pytest.mark.parametrize("phase", PARSERS)
def test_every_flag_is_read(phase):
    declared = {
        a.dest for mode in dataset_names() for a in PARSERS[phase]().parser([f"--dataset_mode={mode}"])._actions
    }
    read = flags_read() | {"dataset_mode", "model", "help"}
    assert declared - read == set()
    assert {"gpu_ids", "nThreads"} <= declared  # the test above looks at something


@pytest.mark.parametrize(("phase", "line"), [(p, line) for p, lines in PUBLISHED_COMMANDS.items() for line in lines])
def test_published_commands_are_accepted(phase, line):
    opt = PARSERS[phase]().parse(line.split())
    assert opt.gpu_ids == "0"
    if "market" in line and phase == "train":
        got = (opt.dis_layers, opt.lambda_g, opt.lambda_rec, opt.t_s_ratio, opt.save_latest_freq)
        assert got == (3, 5, 2, 0.8, 10400)


def test_defaults_are_the_published_ones():
    opt = TrainOptions().parse([])
    wanted = {
        "lambda_rec": 5, "lambda_content": 0.5, "lambda_style": 500, "lambda_g": 2, "t_s_ratio": 0.5, "lr": 2e-4,
        "ratio_g2d": 0.1, "niter": 100, "niter_decay": 100, "dis_layers": 4, "gan_mode": "lsgan", "norm": "instance",
        "ngf": 64, "layers_g": 3, "num_blocks": 3, "nhead": 2, "num_CABs": 2, "num_TTBs": 2, "ndf": 32,
        "init_type": "orthogonal", "vgg_weights": "imagenet", "dataroot": "./dataset/fashion", "name": "DPTN_fashion",
        "print_freq": 800, "save_latest_freq": 4000, "save_epoch_freq": 1, "save_by_iter": False,
    }  # fmt: skip
    assert {name: getattr(opt, name) for name in wanted} == wanted
    market = TrainOptions().parse(["--dataset_mode=market"])
    assert (market.dataroot, market.save_by_iter) == ("./dataset/market", True)
    assert "save_by_iter" not in TestOptions().parse(["--dataset_mode=market"])


def test_published_name_of_wgangp_is_accepted():
    assert TrainOptions().parse(["--gan_mode=wgan-gp"]).gan_mode == "wgangp"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batchsize=4"], "unrecognized arguments: --batchsize=4"),
        (["--batchS=4"], "unrecognized arguments: --batchS=4"),
        (["--batchSize=0"], "'0' is not a whole number of at least 1"),
        (["--batchSize=4.5"], "'4.5' is not a whole number"),
        (["--t_s_ratio=1.2"], "'1.2' is not a number from 0 to 1"),
        (["--lambda_rec=-1"], "'-1' is not a number of at least 0"),
        (["--lr=nan"], "'nan' is not a number"),
        (["--lambda_g=inf"], "'inf' is not a number"),
        (["--gan_mode=lsgna"], "invalid choice: 'lsgna'"),
        (["--dataset_mode=deepfashion"], "invalid choice: 'deepfashion'"),
        (["--model=GAN"], "invalid choice: 'GAN'"),
        (["--name=a/b"], "must be the name of one folder"),
        (["--name=.."], "must be the name of one folder"),
        (["--nhead=3"], "--nhead 3 does not divide the transformer's width 256"),
        (["--layers_g=9"], "--layers_g 9: 256 x 256 images cannot be halved 9 times"),
        (["--layers_g=8"], "--layers_g 8: the features would be 1 x 1, which cannot be normalized"),
        (["--dataset_mode=market", "--dis_layers=7"], "--dis_layers 7: 128 x 64 images cannot be halved 7 times"),
        (["--norm=batch", "--accumulate=2"], "--accumulate needs --norm instance"),
        (["--niter=0", "--niter_decay=0"], "no epoch to train"),
    ],
)
def test_bad_flags_exit_with_2(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        TrainOptions().parse(flags)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_testing_with_several_processes_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        TestOptions().parse(["--gpu_ids=0,1"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        TestOptions().parse([])
    assert capsys.readouterr().err.count("test.py is one process on one GPU") == 2


def test_text_marks_options_that_differ_from_defaults():
    options = TrainOptions()
    options.parse(["--lr=0.001"])
    assert re.search(r"^lr: 0.001 +\[default: 0.0002\]$", options.text, re.MULTILINE)
    assert re.search(r"^beta1: 0.5$", options.text, re.MULTILINE)
    assert re.search(r"^options: .*\blr 0.001\b", options.changed_text, re.DOTALL)
    assert "beta1" not in options.changed_text


@pytest.mark.parametrize(
    "flag",
    [
        *(f"--norm={norm}" for norm in NORMS),
        *(f"--init_type={name}" for name in INITIALIZERS),
        *(f"--gan_mode={mode}" for mode in GAN_MODES),
        *("--precision=fp32", "--precision=bf16", "--channels_last", "--no-channels_last"),
    ],
)
def test_every_choice_constructs(flag):
    assert create_model(train_options(*TINY, flag), CPU, is_train=True).nets.keys() == {"G", "D"}


def test_names_find_their_classes():
    assert [find_model(name).__name__ for name in model_names()] == ["DPTNModel", "DPTNTAModel"]
    assert [find_dataset(name).__name__ for name in dataset_names()] == [
        "FashionDataset", "Fashion512Dataset", "MarketDataset",
    ]  # fmt: skip


def test_class_that_its_file_lacks_is_a_user_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "models.mine_model", ModuleType("models.mine_model"))
    sys.modules["models.mine_model"].__file__ = "models/mine_model.py"
    with pytest.raises(UserError, match="models/mine_model.py: expected a class MINEModel"):
        find_model("MINE")


@pytest.mark.parametrize("value", [True, False])
def test_switch_of_the_network_comes_from_the_run(value, monkeypatch, tmp_path):
    """A network flag of a subclass may be a switch, or have no default."""

    def with_more_flags(parser, is_train):
        DPTNModel.modify_commandline_options(parser, is_train)
        parser.add_argument("--use_mask", action=BooleanOptionalAction, default=not value)
        parser.add_argument("--extra", type=int)

    class MyModel(DPTNModel):
        modify_commandline_options = staticmethod(with_more_flags)

    monkeypatch.setattr("options.base_options.find_model", lambda _name: MyModel)
    (tmp_path / "x").mkdir()
    stored = {"options": {"use_mask": value, "extra": None, "ngf": 8}}
    (tmp_path / "x/train_opt.json").write_text(json.dumps(stored))
    opt = TestOptions().parse(["--name=x", f"--checkpoints_dir={tmp_path}"])
    assert (opt.use_mask, opt.extra, opt.ngf) == (value, None, 8)


def test_lists_of_a_subclass_come_from_the_run(monkeypatch, tmp_path):
    def with_widths(parser, is_train):
        DPTNModel.modify_commandline_options(parser, is_train)
        parser.add_argument("--widths", nargs="+", type=int, default=[1])
        parser.add_argument("--extra", action="append", choices=["a", "b"])

    class MyModel(DPTNModel):
        modify_commandline_options = staticmethod(with_widths)

    monkeypatch.setattr("options.base_options.find_model", lambda _name: MyModel)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/train_opt.json").write_text(json.dumps({"options": {"widths": [3, 4], "extra": ["b"]}}))
    opt = TestOptions().parse(["--name=x", f"--checkpoints_dir={tmp_path}"])
    assert (opt.widths, opt.extra) == ([3, 4], ["b"])
    (tmp_path / "x/train_opt.json").write_text(json.dumps({"options": {"widths": [3, "a"]}}))
    with pytest.raises(UserError, match="train_opt.json: cannot be read"):
        TestOptions().parse(["--name=x", f"--checkpoints_dir={tmp_path}"])


def test_flag_of_a_type_that_no_file_can_hold_is_an_error(monkeypatch, tmp_path):
    def with_path(parser, is_train):
        DPTNModel.modify_commandline_options(parser, is_train)
        parser.add_argument("--extra", type=Path, default=Path("a"))

    class MyModel(DPTNModel):
        modify_commandline_options = staticmethod(with_path)

    monkeypatch.setattr("options.base_options.find_model", lambda _name: MyModel)
    with pytest.raises(UserError, match=r"--extra: .*Path\('a'\) cannot be stored"):
        TrainOptions().parse([f"--checkpoints_dir={tmp_path}"])


def test_model_comes_from_the_run_of_the_default_name(tmp_path):
    (tmp_path / "DPTN_market").mkdir()
    (tmp_path / "DPTN_market/train_opt.json").write_text(json.dumps({"options": {"model": "DPTNTA", "ngf": 8}}))
    opt = TestOptions().parse(["--dataset_mode=market", f"--checkpoints_dir={tmp_path}"])
    assert (opt.name, opt.model, opt.ngf) == ("DPTN_market", "DPTNTA", 8)


def test_size_flags_change_their_network():
    """Each size flag changes the parameters of its network; two are dead in the published code."""

    def sizes(*flags: str) -> dict[str, int]:
        nets = create_model(train_options(*TINY, *flags), CPU, is_train=True).nets
        return {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}

    plain = sizes()
    for flag in ("--ngf=16", "--layers_g=3", "--num_blocks=2", "--num_CABs=2", "--num_TTBs=2"):
        assert sizes(flag)["G"] > plain["G"]
    for flag in ("--ndf=16", "--dis_layers=3"):
        assert sizes(flag)["D"] > plain["D"]
    heads = create_model(train_options(*TINY, "--nhead=4"), CPU, is_train=True).net_G.ptm.cabs[0].self_attention.heads
    assert heads == 4


def test_sizes_come_from_the_run(tmp_path):
    """test.py needs no size flags for a run of train.py; flags that are given win."""
    folder = tmp_path / "run"
    folder.mkdir()
    options = {"dataset_mode": "market", "model": "DPTN", "ngf": 8, "layers_g": 2, "lr": 3.0}
    (folder / "train_opt.json").write_text(json.dumps({"options": options}))
    flags = [f"--checkpoints_dir={tmp_path}", "--name=run"]
    opt = TestOptions().parse(flags)
    assert (opt.dataset_mode, opt.ngf, opt.layers_g, opt.nhead) == ("market", 8, 2, 2)
    assert not hasattr(opt, "lr")
    opt = TestOptions().parse([*flags, "--ngf=16", "--dataset_mode=fashion"])
    assert (opt.dataset_mode, opt.ngf, opt.layers_g) == ("fashion", 16, 2)
    assert TestOptions().parse([f"--checkpoints_dir={tmp_path}", "--name=other"]).ngf == 64


def test_a_run_of_another_name_is_not_looked_at(tmp_path, monkeypatch):
    """Neither that of the data set's default name, nor a folder called None."""
    monkeypatch.chdir(tmp_path)
    for name in ("DPTN_fashion", "None"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "train_opt.json").write_text("{")
    options = TestOptions()
    assert options.parse(["--name=other"]).ngf == 64
    assert options.changed == ["name"]
    options.parser([])


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", '{"options": 3}', '"options"', '{"options": {"model": "Foo"}}', '{"options": {"dataset_mode": 5}}',
        '{"options": {"nhead": "x"}}', '{"options": {"ngf": -8}}', '{"options": {"norm": "none"}}',
    ],
)  # fmt: skip
def test_damaged_options_of_a_run_are_named(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train_opt.json").write_text(content)
    with pytest.raises(UserError, match="train_opt.json: cannot be read"):
        TestOptions().parse([f"--checkpoints_dir={tmp_path}", "--name=run"])
