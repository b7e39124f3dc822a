"""inference/onnx_export.py, scripts/export_onnx.py, example_onnx.py: the files compute what PyTorch computes.

Bounds: the generator's 2e-5 of values in [-1, 1] is for trained weights. The formula weights of tiny networks amplify
rounding more, so there both float32 results are held against float64.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data.keypoints import draw_heat_maps, scale_keypoints
from data.pairs import read_keypoints
from data.synthetic.people import render_people
from inference import onnx_export
from inference.onnx_export import GeneratorGraph, TransferGraph, graphs, run_onnx
from inference.pose_transfer import PoseTransfer
from models import create_model
from models.blocks import InstanceNorm
from models.published_weights import save_network
from scripts import export_onnx
from tests.formula import fill_by_formula
from tests.helpers import CPU, REPOSITORY, TINY_G, test_options
from tests.inference.tiny_transfer import TINY_FLAGS
from util import image as util_image

PRETRAINED = {"name": "rendered_market", "checkpoints_dir": REPOSITORY / "pretrained", "gpu_ids": -1}
SIZES = {"market": ((128, 64), (128, 64)), "fashion": ((256, 176), (256, 256))}


def make_tiny(folder: Path, mode: str) -> PoseTransfer:
    flags = [*TINY_G, "--layers_g=3", f"--dataset_mode={mode}", "--name=tiny", f"--checkpoints_dir={folder}"]
    net = create_model(test_options(*flags), CPU, is_train=False).nets["G"]
    fill_by_formula(net)
    save_network(net, folder / "tiny/latest_net_G.pth")
    where = {"checkpoints_dir": folder, "dataset_mode": mode, "gpu_ids": -1, "channels_last": False}
    return PoseTransfer.load("tiny", **where, **TINY_FLAGS | {"layers_g": 3})  # at two, attention takes a gigabyte


@pytest.fixture(scope="module", params=["market", "fashion"])
def tiny(request, tmp_path_factory) -> PoseTransfer:
    return make_tiny(tmp_path_factory.mktemp(request.param), request.param)


def unusual_keypoints() -> torch.Tensor:
    """Poses in pixels of 256 x 176: every joint's kind of position that a file can hold."""
    torch.manual_seed(0)
    poses = torch.rand(3, 18, 2) * torch.tensor([256.0, 176.0])
    poses[0] = poses[0].floor()
    poses[1, :8] = torch.nan
    poses[1, 8] = torch.tensor([torch.nan, 40.0])
    poses[1, 9:12] = torch.tensor([[-5.0, 20.0], [300.0, 90.0], [100.0, 240.0]])
    poses[2, :4] = torch.tensor([[1e9, 5.0], [5.0, -1e9], [-0.5, 0.0], [255.99, 175.99]])
    return poses


@pytest.mark.parametrize("mode", SIZES)
def test_heat_maps_of_the_graph_equal_those_of_the_data_to_the_bit(mode):
    stored, network = SIZES[mode]
    poses = unusual_keypoints()
    drawn = TransferGraph(nn.Identity(), stored, network).draw_heat_maps(poses)
    expected = draw_heat_maps(scale_keypoints(poses, stored, network), network)
    assert expected.max() == 1
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize(
    ("stored", "network", "levels"),
    [(*SIZES["fashion"], 0), ((64, 48), (128, 48), 0), ((96, 64), (96, 48), 1), ((40, 30), (64, 64), 1)],
)
def test_stretch_of_the_graph_equals_pillows(stored, network, levels):
    """Sizes of other data sets may differ by the rounding of Pillow's weights."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (3, *stored), dtype=torch.uint8)
    expected = util_image.stretch(util_image.to_pil(pixels), network)
    stretched = TransferGraph(nn.Identity(), stored, network).stretch(pixels[None].float())
    np.testing.assert_allclose(stretched[0], expected, atol=levels)


def test_transfer_graph_equals_pose_transfer(tiny):
    graph = graphs(tiny)[1]
    torch.manual_seed(1)
    inputs = graph.random_inputs(1)
    with torch.inference_mode():
        generated = graph(*inputs).numpy()
    assert generated.std() > 20
    levels = np.abs(generated.astype(int) - tiny(*(x.numpy() for x in inputs)))
    assert levels.max() <= 1  # another memory format is summed in another order
    assert (levels > 0).mean() < 1e-3


def test_missing_package_is_one_line(call, monkeypatch, tmp_path):
    monkeypatch.setattr("util.packages.find_spec", lambda name: None if name == "onnxscript" else True)
    done = call(export_onnx, "--name=x", f"--out={tmp_path}")
    message = "error: the export to ONNX needs the package onnxscript: pip install onnxscript\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.fixture
def packages() -> None:
    for package in onnx_export.PACKAGES:
        pytest.importorskip(package)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name=a/b"], "error: --name 'a/b': must be the name of one folder"),
        (["--name=rendered_market", "--which_epoch=7"], "7_net_G.pth: "),
        (["--name=rendered_market", "--out=file"], "File exists: 'file'"),
        (["--name=rendered_market", "--dataset_mode=x"], "argument --dataset_mode: invalid choice: 'x'"),
    ],
)
def test_bad_flags_are_one_line(call, packages, monkeypatch, tmp_path, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    done = call(export_onnx, f"--checkpoints_dir={REPOSITORY / 'pretrained'}", "--out=onnx", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not Path("onnx").exists()


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> tuple[PoseTransfer, list[Path]]:
    for package in onnx_export.PACKAGES:
        pytest.importorskip(package)
    return tiny, onnx_export.export(tiny, tmp_path_factory.mktemp("onnx"))


def calls_of(net: nn.Module) -> Counter:
    """How often each operator of ONNX has to occur: the generator calls each of its layers once."""
    kinds = {"Conv": nn.Conv2d, "ConvTranspose": nn.ConvTranspose2d, "InstanceNormalization": InstanceNorm}
    return Counter(name for module in net.modules() for name, kind in kinds.items() if isinstance(module, kind))


def errors(path: Path, graph: GeneratorGraph, batch: int) -> tuple[float, float]:
    """The largest errors of onnxruntime and of PyTorch, both in float32, of values in [-1, 1]."""
    torch.manual_seed(batch)
    inputs = graph.random_inputs(batch)
    with torch.inference_mode():
        eager = graph(*inputs).numpy()
        exact = graph.double()(*(x.double() for x in inputs)).numpy()
    graph.float()
    assert exact.std() > 0.1
    return np.abs(run_onnx(path, graph, inputs) - exact).max(), np.abs(eager - exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_generator_in_onnxruntime_is_as_exact_as_pytorch(exported, batch):
    transfer, (path, _) = exported
    theirs, ours = errors(path, graphs(transfer)[0], batch)
    assert theirs < 3 * ours


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_transfer_in_onnxruntime_is_within_one_level(exported, batch):
    transfer, (_, path) = exported
    graph = graphs(transfer)[1]
    torch.manual_seed(batch)
    inputs = graph.random_inputs(batch)
    missing = inputs[1].isnan().any(-1)
    outside = (inputs[2] < 0) | (inputs[2] > torch.tensor(transfer.stored_size))
    assert missing.any()
    assert outside.any()
    generated = run_onnx(path, graph, inputs)
    expected = transfer(*(x.numpy() for x in inputs))
    assert (generated.dtype, generated.shape) == (np.uint8, (batch, *transfer.stored_size, 3))
    np.testing.assert_allclose(generated.astype(int), expected.astype(int), atol=1)


@pytest.mark.slow
def test_graphs_hold_operators_of_onnx_alone_with_the_layers_in_plain_form(exported):
    import onnx

    transfer, paths = exported
    for path in paths:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18}
        assert {node.domain for node in model.graph.node} == {""}
        assert not model.functions
        assert str(REPOSITORY).encode() not in path.read_bytes()
        operators = Counter(node.op_type for node in model.graph.node)
        wanted = calls_of(transfer.model.net_G)
        assert {name: operators[name] for name in wanted} == wanted
        assert operators["LeakyRelu"] > 0
        assert [x.type.tensor_type.shape.dim[0].dim_param for x in model.graph.input] == ["batch"] * 3


@pytest.mark.slow
def test_metadata_says_where_the_weights_are_from(exported):
    import onnx

    transfer, paths = exported
    for path in paths:
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert metadata["weights_sha256"] == hashlib.sha256(transfer.weights_file.read_bytes()).hexdigest()
        assert (metadata["name"], metadata["weights_stored_as"]) == ("tiny", "float32")
        assert json.loads(metadata["stored_size"]) == list(transfer.stored_size)
        assert json.loads(metadata["network_size"]) == list(transfer.network_size)


@pytest.mark.slow
def test_half_equals_weights_rounded_in_pytorch(exported, tmp_path):
    """Half the file; the images are those of float32 arithmetic with rounded matrices and kernels."""
    import onnx

    transfer, (path, _) = exported
    model = onnx.load(path)
    onnx_export.store_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "half.onnx")
    assert (
        tmp_path / "half.onnx"
    ).stat().st_size < 0.8 * path.stat().st_size  # of a tiny network, the graph is a third
    rounded = make_tiny(tmp_path, transfer.opt.dataset_mode)
    graph = graphs(rounded)[0]
    torch.manual_seed(0)
    inputs = graph.random_inputs(1)
    with torch.inference_mode():
        exact = graph(*inputs).numpy()
        for weight in graph.parameters():
            if weight.ndim >= 2:
                weight.copy_(weight.half())
        expected = graph(*inputs).numpy()
    generated = run_onnx(tmp_path / "half.onnx", graph, inputs)
    rounding = np.abs(expected - exact).max()
    assert rounding > 1e-3
    assert np.abs(generated - expected).max() < 0.3 * rounding


@pytest.mark.slow
def test_command_and_example_generate_what_pose_transfer_generates(call, packages, tmp_path):
    """The weights of this repository, and a program that can import neither torch nor this repository."""
    run = [f"--{name}={PRETRAINED[name]}" for name in ("name", "checkpoints_dir")]
    done = call(export_onnx, *run, f"--out={tmp_path / 'onnx'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "by at most 1 of 255 levels" in done.stdout or "by at most 0 of 255 levels" in done.stdout
    transfer = PoseTransfer.load(**PRETRAINED)
    theirs, ours = errors(tmp_path / "onnx/generator.onnx", graphs(transfer)[0], 1)
    assert theirs + ours < 2e-5

    people = tmp_path / "people"
    render_people(people, "market", (1, 2), 2, seed=1, workers=1)
    (tmp_path / "torch.py").write_text("raise ImportError('torch is imported')")
    shutil.copy(REPOSITORY / "example_onnx.py", tmp_path)
    csv = people / "market-annotation-test.csv"

    def example(*arguments: object) -> subprocess.CompletedProcess:
        line = [sys.executable, "example_onnx.py", *map(str, arguments)]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = example("onnx/transfer.onnx", people / "test", csv, "--out=x.png")
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in (people / "test").iterdir())
    assert done.stdout == f"x.png: {names[0]}, and the person in it in the pose of {names[-1]}\n"
    poses, photo = read_keypoints(csv), np.array(Image.open(people / "test" / names[0]))
    sheet = np.array(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(sheet[:, :64], photo)
    expected = transfer(photo, poses[names[0]], poses[names[-1]])
    np.testing.assert_allclose(sheet[:, 64:].astype(int), expected.astype(int), atol=1)

    for arguments, message in (
        (("onnx/none.onnx", people / "test", csv), "No such file or directory: 'onnx/none.onnx'"),
        (("onnx/transfer.onnx", people / "test", csv, "--pose=x.jpg"), "has no photo or column 'x.jpg'"),
        (("onnx/generator.onnx", people / "test", csv), "image has the shape (128, 64, 3), but onnx/generator.onnx"),
        (("example_onnx.py", people / "test", csv), "error: "),
    ):
        done = example(*arguments)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
