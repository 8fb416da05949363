#!/usr/bin/env python3
"""Golden numbers of a network of cells (NAS-Bench-201's skeleton in small) and of one of layers with skips (ENAS's macro space in
small), made with PyTorch in double precision.

    python make_cell.py                  # writes cell.safetensors and macro.safetensors beside itself

Needs torch, numpy and safetensors. Inputs are the formulas of make_golden.py.
"""

from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F

from make_golden import BATCH_NORM_EPS, CLASSES, HERE, LABEL_SMOOTHING, fill, gradients, save, value

IMAGES, CHANNELS = (5, 2, 10, 10), [4, 8]
# the operators of each node after the first, by the node that the edge begins at
CELL = [["conv3"], ["avg", "conv1"], ["skip", "none", "max"]]


class ReluConv(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x):
        return self.bn(self.conv(F.relu(x)))


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3 if norm else 1, 1, 1 if norm else 0, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS) if norm else nn.Identity()

    def forward(self, x):
        return self.bn(self.conv(x))


class Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, x):
        return F.relu(self.bn(x))


class Network(nn.Module):
    """Modules are named as the toolkit names the layers: by position in the list of their operator."""

    def __init__(self):
        super().__init__()
        self.first_conv = ConvNorm(IMAGES[1], CHANNELS[0])
        self.nor_conv_3x3 = nn.ModuleList(ReluConv(c, c, 3) for c in CHANNELS)
        self.nor_conv_1x1 = nn.ModuleList(ReluConv(c, c, 1) for c in CHANNELS)
        self.reduction_a = nn.ModuleList([ReluConv(*CHANNELS, 3, 2)])
        self.reduction_b = nn.ModuleList([ReluConv(CHANNELS[1], CHANNELS[1], 3)])
        self.shortcut = nn.ModuleList([ConvNorm(*CHANNELS, norm=False)])
        self.last_norm = Norm(CHANNELS[1])
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(CHANNELS[1], CLASSES)))

    def edge(self, name, cell, x):
        if name == "conv3":
            return self.nor_conv_3x3[cell](x)
        if name == "conv1":
            return self.nor_conv_1x1[cell](x)
        if name == "avg":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        if name == "max":
            return F.max_pool2d(x, 3, 1, 1)
        return x if name == "skip" else x * 0.0

    def cell(self, cell, x):
        nodes = [x]
        for edges in CELL:
            nodes.append(sum(self.edge(name, cell, nodes[start]) for start, name in enumerate(edges)))
        return nodes[-1]

    def forward(self, x):
        x = self.cell(0, self.first_conv(x))
        shortcut = self.shortcut[0](F.avg_pool2d(x, 2, 2))
        x = self.cell(1, shortcut + self.reduction_b[0](self.reduction_a[0](x)))
        return self.classifier(self.last_norm(x).mean((2, 3)))


MACRO_IMAGES, MACRO_CHANNELS, HALVED_AFTER = (5, 2, 9, 7), 6, 2
# operator and outputs that are added: 0 is the stem's, 1 that of the first layer
LAYERS = [("conv3", []), ("avg", [0]), ("sep3", [0, 1]), ("max", [1, 2]), ("conv5", [0]), ("sep5", [])]
NAMES = {"conv3": "conv_3x3", "conv5": "conv_5x5", "sep3": "sep_conv_3x3", "sep5": "sep_conv_5x5", "avg": "avg_pool_3x3", "max": "max_pool_3x3"}


class ConvNormRelu(nn.Module):
    def __init__(self, inputs, outputs, kernel, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Separable(nn.Module):
    def __init__(self, channels, kernel):
        super().__init__()
        self.depthwise = ConvNormRelu(channels, channels, kernel, groups=channels)
        self.pointwise = ConvNormRelu(channels, channels, 1)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


class Plain(nn.Module):
    """A batch norm without activation."""

    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, x):
        return self.bn(x)


class Reduction(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.even = nn.Conv2d(channels, channels - channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, channels // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, x):
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.even(x), self.odd(moved)], 1))


class Macro(nn.Module):
    def __init__(self):
        super().__init__()
        channels = MACRO_CHANNELS
        self.first_conv = ConvNorm(MACRO_IMAGES[1], channels)
        for name, _ in LAYERS:
            self.add_module(f"{NAMES[name]}_in", nn.ModuleList([ConvNormRelu(channels, channels, 1)]))
            if name.startswith("conv"):
                self.add_module(NAMES[name], nn.ModuleList([ConvNormRelu(channels, channels, int(name[4:]))]))
            if name.startswith("sep"):
                self.add_module(NAMES[name], nn.ModuleList([Separable(channels, int(name[3:]))]))
        # the first layer has none
        self.layer_norm = nn.ModuleList(Plain(channels) for _ in LAYERS[1:])
        self.reduction = nn.ModuleList(Reduction(channels) for _ in range(HALVED_AFTER + 1))
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(channels, CLASSES)))

    def forward(self, x):
        outputs = [self.first_conv(x)]
        for at, (name, added) in enumerate(LAYERS):
            if at == HALVED_AFTER:
                outputs = [reduction(output) for reduction, output in zip(self.reduction, outputs)]
            x = getattr(self, f"{NAMES[name]}_in")[0](outputs[-1])
            if name in ("avg", "max"):
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if name == "avg" else F.max_pool2d(x, 3, 1, 1)
            else:
                x = getattr(self, NAMES[name])[0](x)
            if at > 0:
                x = self.layer_norm[at - 1](x + sum(outputs[earlier] for earlier in added))
            outputs.append(x)
        return self.classifier(outputs[-1].mean((2, 3)))


def run(net, shape):
    net = net.double().eval()
    fill(net)
    images = value("images", shape).double()
    numbers = {"eval_logits": net(images)}
    logits = net.train()(images)
    loss = F.cross_entropy(logits, torch.arange(shape[0]) % CLASSES, label_smoothing=LABEL_SMOOTHING)
    loss.backward()
    numbers |= {"loss": loss.reshape(1), "logits": logits, **gradients(net)}
    return {name: tensor.detach() for name, tensor in numbers.items()}


def main():
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}")
    save(HERE / "cell.safetensors", run(Network(), IMAGES))
    save(HERE / "macro.safetensors", run(Macro(), MACRO_IMAGES))


if __name__ == "__main__":
    main()
