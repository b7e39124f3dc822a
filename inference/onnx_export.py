"""Export of a trained generator to ONNX, for programs that do without PyTorch.

`export` writes two files with a dynamic batch size and operators of ONNX alone (domain ai.onnx, opset 18):
generator.onnx is the network (`GeneratorGraph`), transfer.onnx goes from images and poses to images (`TransferGraph`).
Letters: B images, H x W the stored size, h x w the network's resolution.
"""

import json
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.keypoints import CUTOFF_BITS, NUM_JOINTS, OFF_IMAGE, SIGMA, scale_keypoints
from inference.pose_transfer import PoseTransfer
from models.ops import plain_forms
from util.errors import UserError
from util.files import sha256, write_bytes
from util.image import from_uint8, resize_uint8, to_uint8
from util.packages import require_package
from util.reproducibility import git_revision, versions

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILES = ("generator.onnx", "transfer.onnx")
OPSET = 18
MAX_SQUARED_DISTANCE = math.ceil(2 * SIGMA**2 * CUTOFF_BITS * math.log(2))  # from here on a Gaussian is cut off


class GeneratorGraph(nn.Module):
    """Image (B,3,h,w) in [-1, 1], heat maps (B,18,h,w) of its pose and of the target pose -> image (B,3,h,w)."""

    inputs, output = ("image", "source_pose", "target_pose"), "generated"

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, image: Tensor, source_pose: Tensor, target_pose: Tensor) -> Tensor:
        return self.net(image, source_pose, target_pose)[0]

    def random_inputs(self, batch: int) -> tuple[Tensor, ...]:
        image, *poses = (torch.rand(batch, channels, *self.size) for channels in (3, NUM_JOINTS, NUM_JOINTS))
        return image * 2 - 1, *poses


class TransferGraph(nn.Module):
    """What `PoseTransfer` does, in one graph.

    uint8 RGB images (B,H,W,3), and float32 keypoints (B,18,2) of their poses and of the target poses, (y, x) in pixels
    of the stored size, NaN = missing -> uint8 RGB images (B,H,W,3).
    """

    inputs, output = ("image", "source_keypoints", "target_keypoints"), "generated"

    def __init__(self, net: nn.Module, stored_size: tuple[int, int], network_size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.stored_size, self.network_size = net, stored_size, network_size
        self.register_buffer("gaussian", gaussian_by_squared_distance())
        for name, length, new_length in zip(("rows", "columns"), stored_size, network_size):
            self.register_buffer(name, stretch_matrix(length, new_length))

    def forward(self, image: Tensor, source_keypoints: Tensor, target_keypoints: Tensor) -> Tensor:
        unit = from_uint8(self.stretch(image.permute(0, 3, 1, 2).float()))
        poses = [self.draw_heat_maps(keypoints) for keypoints in (source_keypoints, target_keypoints)]
        generated = to_uint8(self.net(unit, *poses)[0])
        return resize_uint8(generated, self.stored_size).permute(0, 2, 3, 1)

    def stretch(self, image: Tensor) -> Tensor:
        """`util.image.stretch` of levels 0..255: Pillow rounds half up after each of the two directions.

        A product with a matrix is exact for DeepFashion, because the matrix holds multiples of 1/32. ONNX's Resize
        computes positions in float32, so it rounds some values between two levels the other way.
        """
        if self.stored_size[1] != self.network_size[1]:
            image = (image @ self.columns.T + 0.5).floor()
        if self.stored_size[0] != self.network_size[0]:
            image = (self.rows @ image + 0.5).floor()
        return image

    def draw_heat_maps(self, keypoints: Tensor) -> Tensor:
        """`data.keypoints.draw_heat_maps` of keypoints in pixels of the stored size: (B,18,2) -> (B,18,h,w).

        The values are looked up by the squared distance, a whole number: so they are exact without exponentials in
        float64.
        """
        pixels = scale_keypoints(keypoints, self.stored_size, self.network_size)
        centers = pixels.nan_to_num(OFF_IMAGE).clamp(-OFF_IMAGE, OFF_IMAGE).int()
        squares = []
        for center, length in zip(centers.unbind(-1), self.network_size):  # center: (B,18)
            distances = (torch.arange(length, dtype=torch.int32) - center.unsqueeze(-1)).abs()  # (B,18,length)
            squares.append(distances.clamp(max=math.isqrt(MAX_SQUARED_DISTANCE) + 1).square())
        squared_distances = squares[0].unsqueeze(-1) + squares[1].unsqueeze(-2)
        return self.gaussian[squared_distances.clamp(max=MAX_SQUARED_DISTANCE).long()]

    def random_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Noise, and poses of which some joints are missing and some are outside the image."""
        image = torch.randint(256, (batch, *self.stored_size, 3), dtype=torch.uint8)
        poses = torch.rand(2, batch, NUM_JOINTS, 2) * 1.4 - 0.2
        poses = poses * torch.tensor(self.stored_size)
        poses[torch.rand(2, batch, NUM_JOINTS) < 0.2] = torch.nan
        return image, *poses


def gaussian_by_squared_distance() -> Tensor:
    """float32 exp(-n / (2 SIGMA^2)) for squared distances n = 0, 1, ..., MAX_SQUARED_DISTANCE; the last entry is 0."""
    table = torch.exp(torch.arange(MAX_SQUARED_DISTANCE + 1, dtype=torch.float64) / (-2 * SIGMA**2))
    table[-1] = 0
    return table.float()


def stretch_matrix(length: int, new_length: int) -> Tensor:
    """float32 (new_length, length), which resizes a column of pixels as Pillow's bilinear filter does."""
    identity = torch.eye(length, dtype=torch.float64)[None, None]
    return F.interpolate(identity, (new_length, length), mode="bilinear", antialias=True)[0, 0].float()


def load_on_cpu(**run: Any) -> PoseTransfer:
    """A run by the arguments of `PoseTransfer.load`. UserError for a bad one."""
    try:
        return PoseTransfer.load(**run, gpu_ids=-1, channels_last=False)
    except ValueError as error:
        raise UserError(str(error)) from error


def export(transfer: PoseTransfer, folder: Path, half: bool = False) -> list[Path]:
    """Write FILES to `folder`, replacing existing ones, and return their paths.

    `half` stores the weights as float16, which halves the files; they are cast back when a program loads them, so
    computing stays float32. The PACKAGES must be installed. Raises UserError if a file cannot be written.
    """
    metadata = describe(transfer, half)
    paths = [folder / name for name in FILES]
    for graph, path in zip(graphs(transfer), paths):
        write_bytes(path, to_onnx(graph, metadata, half))
    return paths


def require_packages() -> None:
    """Raise UserError if one of PACKAGES is missing."""
    for package in PACKAGES:
        require_package(package, "the export to ONNX")


def graphs(transfer: PoseTransfer) -> tuple[GeneratorGraph, TransferGraph]:
    """The modules behind FILES, in their order. `transfer` is on the CPU."""
    net = transfer.model.net_G.eval()
    size = transfer.network_size
    return GeneratorGraph(net, size).eval(), TransferGraph(net, transfer.stored_size, size).eval()


def describe(transfer: PoseTransfer, half: bool) -> dict[str, str]:
    """The metadata of the files."""
    revision = git_revision()
    opt = transfer.opt
    return {
        "name": opt.name, "which_epoch": opt.which_epoch, "model": opt.model, "dataset_mode": opt.dataset_mode,
        "weights_sha256": sha256(transfer.weights_file), "weights_stored_as": "float16" if half else "float32",
        "stored_size": json.dumps(transfer.stored_size), "network_size": json.dumps(transfer.network_size),
        "git_commit": revision.get("commit", "unknown"), "git_changed": json.dumps(revision.get("changed")),
        "torch": versions()["torch"],
    }  # fmt: skip


def to_onnx(graph: GeneratorGraph | TransferGraph, metadata: dict[str, str], half: bool) -> bytes:
    """The content of the ONNX file of `graph`, which is on the CPU and in eval mode."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it notes each operator that it cannot fold
    batch = torch.export.Dim("batch")
    with torch.no_grad(), plain_forms(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*axis name.*")  # several inputs have the same batch size
        program = torch.onnx.export(
            graph, graph.random_inputs(2), dynamo=True, opset_version=OPSET, verbose=False, external_data=False,
            input_names=graph.inputs, output_names=[graph.output], dynamic_shapes=({0: batch},) * len(graph.inputs),
        )  # fmt: skip
    program.model.metadata_props.update(metadata)
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of the export, with paths of this machine
    if half:
        store_in_half(model)
    return model.SerializeToString()


def store_in_half(model: Any) -> None:
    """Store the matrices and kernels of an onnx.ModelProto as float16, each with a Cast back to float32.

    Vectors stay float32: biases and norms are small, and the table of Gaussians has values below the smallest of
    float16. The matrix that stretches DeepFashion's images holds multiples of 1/32, which are exact.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) >= 2:
            name, values = weight.name, numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def compare(transfer: PoseTransfer, paths: list[Path]) -> tuple[float, np.ndarray]:
    """Run the files of `export` in onnxruntime, on random inputs, beside PyTorch.

    Returns the largest difference of generator.onnx, of values in [-1, 1], and all differences of transfer.onnx from
    `transfer`, in levels of 255.
    """
    (generator, transfer_graph), generator_path, transfer_path = graphs(transfer), *paths
    torch.manual_seed(0)
    inputs = generator.random_inputs(1)
    with torch.inference_mode():
        expected = generator(*inputs).numpy()
    difference = np.abs(run_onnx(generator_path, generator, inputs) - expected).max()
    inputs = transfer_graph.random_inputs(2)
    expected = transfer(*(x.numpy() for x in inputs)).astype(int)
    return float(difference), np.abs(run_onnx(transfer_path, transfer_graph, inputs) - expected)


def run_onnx(path: Path, graph: GeneratorGraph | TransferGraph, inputs: Sequence[Tensor]) -> np.ndarray:
    """The output of one of FILES, computed by onnxruntime on the CPU."""
    return open_session(path).run(None, {name: x.numpy() for name, x in zip(graph.inputs, inputs)})[0]


def open_session(file: Path | bytes, threads: int = 0) -> Any:
    """An onnxruntime.InferenceSession on the CPU.

    file: the ONNX file's path or its content. threads: their number; 0: as many as there are cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
