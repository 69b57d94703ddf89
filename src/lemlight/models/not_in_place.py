"""torchvision's blocks without in-place arithmetic, so that whoever hooks a layer sees what the layer returned."""

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import convnext, efficientnet, inception, mobilenetv3, resnet
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv

# torchvision carries no types, so that its blocks are Any to mypy:
# mypy: allow-subclassing-any, no-warn-return-any


class _BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class _MBConv(efficientnet.MBConv):
    def forward(self, input: Tensor) -> Tensor:
        out = self.block(input)
        return self.stochastic_depth(out) + input if self.use_res_connect else out


class _FusedMBConv(efficientnet.FusedMBConv):
    def forward(self, input: Tensor) -> Tensor:
        out = self.block(input)
        return self.stochastic_depth(out) + input if self.use_res_connect else out


class _InvertedResidual(mobilenetv3.InvertedResidual):
    def forward(self, input: Tensor) -> Tensor:
        out = self.block(input)
        return out + input if self.use_res_connect else out


class _CNBlock(convnext.CNBlock):
    def forward(self, input: Tensor) -> Tensor:
        return self.stochastic_depth(self.layer_scale * self.block(input)) + input


class _GoogLeNetConv(GoogLeNetConv):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _InceptionConv(inception.BasicConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    resnet.BasicBlock: _BasicBlock,
    resnet.Bottleneck: _Bottleneck,
    efficientnet.MBConv: _MBConv,
    efficientnet.FusedMBConv: _FusedMBConv,
    mobilenetv3.InvertedResidual: _InvertedResidual,
    convnext.CNBlock: _CNBlock,
    GoogLeNetConv: _GoogLeNetConv,
    inception.BasicConv2d: _InceptionConv,
}


def remove_in_place(network: nn.Module) -> None:
    """Switch every in-place activation and residual sum of a network to its plain form; the function stays the same."""
    for module in network.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
        replacement = REPLACEMENTS.get(type(module))
        if replacement is not None:
            # The subclass changes forward alone: parameters, names and hooks of the block stay where they are.
            module.__class__ = replacement
