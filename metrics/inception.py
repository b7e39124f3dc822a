"""Inception-v3 features for FID and the Inception Score, from either of two networks.

"torchvision": the ImageNet network, with its input scaled as by pytorch-fid before 2019: images in [0, 1] get the
rescaling that is meant for ImageNet-normalized ones. The published DPTN numbers come from this.
"pytorch-fid": the network of Heusel et al. (NeurIPS 2017): weights of 2015, average pools that leave the padding out, a
max pool in the last block, images in [-1, 1].
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.errors import UserError
from util.packages import require_package
from util.pretrained import PretrainedWeights, load_pretrained

if TYPE_CHECKING:
    from torchvision.models.inception import Inception3

SIDE = 299  # pixels; images are stretched to it, bilinear without anti-aliasing
FLAGS = {"torchvision": "--inception_weights", "pytorch-fid": "--fid_inception_weights"}
PYTORCH_FID_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)


class Inception(nn.Module):
    """(N,3,H,W) of levels 0..255 -> pool features (N,2048) float32."""

    def __init__(self, kind: str, weights: str) -> None:
        """`kind`: a Protocol.inception. `weights`: 'imagenet' or 'pytorch-fid' (downloaded), or a state dict file.

        UserError for "tensorflow", and for weights that are not available.
        """
        super().__init__()
        if kind == "tensorflow":
            raise UserError(
                "PATN's Inception Score needs the TensorFlow 1 graph of December 2015, which PyTorch cannot run: leave "
                "'is' out under the patn protocol, or give --skip_unavailable"
            )
        if kind == "torchvision":
            from torchvision.models.inception import Inception3, Inception_V3_Weights  # slow to import

            url = Inception_V3_Weights.IMAGENET1K_V1.url
            published = PretrainedWeights("Inception-v3", "torchvision", "imagenet", url)
            net = Inception3(aux_logits=False, init_weights=False)
            deviations, means = (0.229, 0.224, 0.225), (0.485, 0.456, 0.406)  # ImageNet's
            scale, shift = [d / 0.5 for d in deviations], [(m - 0.5) / 0.5 for m in means]
        else:
            published = PretrainedWeights("Inception-v3", "pytorch-fid", "pytorch-fid", PYTORCH_FID_URL)
            net = pytorch_fid_network()
            scale, shift = (2.0,) * 3, (-1.0,) * 3
        load_pretrained(net, weights, published, FLAGS[kind])
        self.classifier, net.fc = net.fc, nn.Identity()
        self.net, self.kind = net, kind
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.net((x * self.scale + self.shift).contiguous(memory_format=torch.channels_last)).float()

    def probabilities(self, features: Tensor) -> Tensor:
        """(N,2048) -> (N,classes) float64, on the CPU. Without bias for the 2015 network, as by Salimans et al."""
        bias = None if self.kind == "pytorch-fid" else self.classifier.bias
        return F.linear(features, self.classifier.weight, bias).cpu().double().softmax(1)


def pytorch_fid_network() -> "Inception3":
    """The network that `pytorch_fid.inception.fid_inception_v3` builds; that function always downloads its weights."""
    require_package("pytorch-fid", "the Inception-v3 of 2015 (--protocol standard)")
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models.inception import Inception3

    net = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    net.Mixed_5b = FIDInceptionA(192, pool_features=32)
    net.Mixed_5c, net.Mixed_5d = (FIDInceptionA(channels, pool_features=64) for channels in (256, 288))
    for block, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(net, block, FIDInceptionC(768, channels_7x7=width))
    net.Mixed_7b, net.Mixed_7c = FIDInceptionE_1(1280), FIDInceptionE_2(2048)
    return net
