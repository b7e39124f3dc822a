"""Losses against closed forms, and where the weights of VGG19 come from."""

import numpy as np
import pytest
import torch
from torch import nn

from models.losses import VGG19Features, gradient_penalty, gram_matrix, load_vgg19
from util.errors import UserError


def test_gradient_penalty_of_a_linear_critic_is_its_closed_form():
    """A linear critic with gradient g everywhere has the penalty (|g| - 1)^2."""

    class Linear(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image.flatten(1).sum(1)

    real, fake = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    wanted = (2 * np.sqrt(3 * 64) - 1) ** 2
    assert gradient_penalty(Linear(), real, fake).item() == pytest.approx(wanted, rel=1e-5)


def test_gram_matrix_equals_einsum_and_is_float32():
    features = torch.randn(2, 4, 3, 5)
    wanted = np.einsum("nchw,ndhw->ncd", features, features) / 60
    np.testing.assert_allclose(gram_matrix(features), wanted, rtol=1e-5, atol=1e-6)
    assert gram_matrix(features.bfloat16()).dtype == torch.float32


class TestVGGWeights:
    def test_file_with_features_only_loads(self, tmp_path):
        state = {f"features.{k}": v for k, v in load_vgg19("random").features.state_dict().items()}
        torch.save(state, tmp_path / "vgg.pth")
        loaded = load_vgg19(str(tmp_path / "vgg.pth"))
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())

    def test_random_is_seeded(self):
        before = torch.get_rng_state()
        a, b = (load_vgg19("random").state_dict() for _ in range(2))
        assert all(torch.equal(a[key], b[key]) for key in a)
        torch.manual_seed(1)
        c = load_vgg19("random").state_dict()
        assert all(torch.equal(a[key], c[key]) for key in a)
        torch.set_rng_state(before)

    def test_wrong_or_missing_file_is_a_user_error(self, tmp_path):
        torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
        with pytest.raises(UserError, match="not a torchvision vgg19 state dict"):
            load_vgg19(str(tmp_path / "vgg.pth"))
        with pytest.raises(UserError, match="VGG19 weights .* not found"):
            load_vgg19(str(tmp_path / "none.pth"))

    def test_failed_download_is_a_user_error(self, monkeypatch, tmp_path):
        def refuse(*_args, **_kwargs):
            raise OSError("no network")

        monkeypatch.setattr("urllib.request.urlopen", refuse)
        monkeypatch.setattr("torch.hub.urlopen", refuse)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(UserError, match="could not fetch its VGG19 weights .*no network"):
            load_vgg19("imagenet")

    def test_imagenet_weights_come_from_the_cache(self, monkeypatch, tmp_path):
        """A file already under TORCH_HOME is used without a download."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        state = {f"features.{k}": v for k, v in load_vgg19("random").features.state_dict().items()}
        torch.save(state, tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth")
        assert torch.equal(load_vgg19("imagenet").features[0].weight, state["features.0.weight"])

    def test_is_frozen_and_stops_at_relu5_2(self):
        vgg = VGG19Features()
        assert len(vgg.features) == 32
        assert not any(p.requires_grad for p in vgg.parameters())
