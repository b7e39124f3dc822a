"""metrics/inception.py against goldens and the pytorch-fid package."""

import numpy as np
import pytest
import pytorch_fid.inception
import torch

from metrics.inception import PYTORCH_FID_URL
from tests.metrics.conftest import GOLDENS, golden_images

pytestmark = pytest.mark.slow  # full-size networks


def test_torchvision_inception_equals_goldens(formula_inceptions):
    features = formula_inceptions["torchvision"](golden_images(256, 176)[1])
    np.testing.assert_allclose(features[:, :32], GOLDENS["fid_legacy_features_first32"], rtol=0, atol=1e-5)
    moments = np.stack([features.mean(1), features.std(1, correction=0)])
    np.testing.assert_allclose(moments, GOLDENS["fid_legacy_features_mean_std"], rtol=0, atol=1e-6)


def test_pytorch_fid_inception_equals_the_package(formula_inceptions, inception_states, monkeypatch):
    state = {key: value for key, value in inception_states["pytorch-fid"].items() if "AuxLogits" not in key}
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_args, **_kwargs: state)
    package = pytorch_fid.inception.InceptionV3().eval()
    assert pytorch_fid.inception.FID_WEIGHTS_URL == PYTORCH_FID_URL
    images = golden_images(128, 64)[1][:2]
    ours = formula_inceptions["pytorch-fid"]
    features = ours(images)
    np.testing.assert_allclose(features, package(images / 255)[0].flatten(1), rtol=0, atol=1e-5)
    logits = features.double() @ state["fc.weight"].double().T
    np.testing.assert_allclose(ours.probabilities(features), logits.softmax(1), rtol=0, atol=1e-6)


def test_torchvision_probabilities_use_the_bias(formula_inceptions, inception_states):
    bias = inception_states["torchvision"]["fc.bias"]
    probabilities = formula_inceptions["torchvision"].probabilities(torch.zeros(1, 2048))
    np.testing.assert_allclose(probabilities[0], bias.double().softmax(0), rtol=1e-6)
