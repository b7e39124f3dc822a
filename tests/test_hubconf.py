"""hubconf.py: torch.hub finds the entries, and they give what the rest of the repository gives."""

import json
from pathlib import Path

import pytest
import torch

import hubconf
from data.keypoints import draw_heat_maps
from data.synthetic.people import render_identity
from tests.helpers import REPOSITORY, TINY_G, save_random_generator, test_options
from util.errors import UserError
from util.image import from_uint8, to_uint8

# a program of a user, outside the repository
PROGRAM = """
import sys, torch
repository, weights = sys.argv[1:]
generator = torch.hub.load(repository, "dptn", source="local", pretrained=weights)
transfer = torch.hub.load(repository, "pose_transfer", source="local", pretrained=weights, gpu_ids="-1")
print(sum(p.numel() for p in generator.parameters()), generator.training, transfer.stored_size)
"""


def test_torch_hub_loads_from_a_folder(command, tmp_path):
    """In a process that cannot import the repository. The sizes come from train_opt.json; the paper's would not fit."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = command(str(tmp_path / "program.py"), REPOSITORY, "rendered_market", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2466211 False (128, 64)"]
    assert list((tmp_path / "work").iterdir()) == []


def test_torch_hub_lists_the_two_entries_only():
    listed = [name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")]
    assert listed == ["dptn", "pose_transfer"]


def test_generator_and_pose_transfer_generate_the_same_image():
    source, target = render_identity(2, "market", 2, seed=1)
    expected = hubconf.pose_transfer("rendered_market", gpu_ids="-1")(
        source.pixels, source.keypoints, target.keypoints
    )  # fmt: skip
    poses = [draw_heat_maps(torch.tensor(photo.keypoints)[None], (128, 64)) for photo in (source, target)]
    image = from_uint8(torch.tensor(source.pixels).permute(2, 0, 1)[None])
    with torch.inference_mode():
        generated, reconstructed = hubconf.dptn("rendered_market")(image, *poses)
    assert reconstructed is None
    difference = to_uint8(generated)[0].permute(1, 2, 0).int() - torch.from_numpy(expected).int()
    assert difference.abs().max() <= 1
    assert expected.std() > 20


def test_dptn_without_weights_has_the_papers_sizes_and_starting_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = hubconf.dptn()
    assert (sum(p.numel() for p in net.parameters()), net.training) == (9_794_371, False)
    kernel = net.encoder.down[0].conv1.weight.detach().flatten(1)
    torch.testing.assert_close(kernel @ kernel.T, 0.02**2 * torch.eye(len(kernel)))


def test_dptn_loads_in_a_program_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sum(p.numel() for p in hubconf.dptn("rendered_market").parameters()) == 2_466_211


def test_dptn_loads_a_path_with_the_sizes_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random_generator("a", seed=3)
    path = Path("checkpoints/a/latest_net_G.pth")
    with pytest.raises(UserError, match="does not fit this generator"):
        hubconf.dptn(str(path))
    sizes = {
        name: getattr(test_options(*TINY_G), name) for name in ("ngf", "layers_g", "num_blocks", "num_CABs", "num_TTBs")
    }
    path.with_name("train_opt.json").write_text(json.dumps({"options": sizes}))
    loaded, saved = hubconf.dptn(str(path)).state_dict(), torch.load(path)
    torch.testing.assert_close(loaded["decoder.output.conv.weight"], saved["outconv.model.2.weight"], rtol=0, atol=0)
    link = Path("my_net_G.pth")
    link.symlink_to(path)
    torch.testing.assert_close(hubconf.dptn(str(link)).state_dict(), loaded, rtol=0, atol=0)
    path.rename("0123")  # as in caches of weights, where a link leads to a file with another name
    path.symlink_to(Path("0123").resolve())
    torch.testing.assert_close(hubconf.dptn(str(path)).state_dict(), loaded, rtol=0, atol=0)


@pytest.mark.parametrize("entry", [hubconf.dptn, hubconf.pose_transfer])
def test_unknown_weights_are_an_error(entry, tmp_path):
    with pytest.raises(UserError, match="pretrained='fashion': must be one of rendered_market, or a path of EPOCH_net"):
        entry("fashion")
    with pytest.raises(UserError, match="latest_net_G.pth: .* not found"):
        entry(str(tmp_path / "latest_net_G.pth"))
