#!/usr/bin/env python3
"""Golden numbers for sub-networks of every family, computed by PyPI's `ofa` in double precision.

    python make_families.py              # writes families.json beside itself; needs torch, numpy, safetensors and ofa

Weights, images and directions are the formula of `make_golden.py`. For each sub-network the file holds its choices as
`ofa` writes them, multiply-accumulates and parameters (counted on the package's static network), logits at inference
with the formula's running statistics, and, of a training pass with the formula's upstream gradient, logits and for each
parameter the sum of gradient times direction and the gradient's norm: enough to tell a wrong gradient, and small.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from make_golden import unit, value

from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets

CLASSES, IMAGES = 10, 3
KERNELS, EXPANDS, DEPTHS = [3, 5, 7], [3, 4, 6], [2, 3, 4]
HERE = Path(__file__).resolve().parent


def mobile(family, width):
    return family(CLASSES, width_mult=width, ks_list=KERNELS, expand_ratio_list=EXPANDS, depth_list=DEPTHS)


# space, supernet, side of the training images, number of sub-networks
SPACES = [
    ("ofa-mbv3-w1.0", lambda: mobile(OFAMobileNetV3, 1.0), 64, 1),
    ("ofa-proxyless-w1.3", lambda: mobile(OFAProxylessNASNets, 1.3), 64, 2),
    # 72 gives maps of odd sides to every average
    ("ofa-resnet50", lambda: OFAResNets(CLASSES, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35],
                                        width_mult_list=[0.65, 0.8, 1.0]), 72, 2),
]


def fill(net):
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                name = name.replace(".mobile_inverted_conv.", ".conv.")
                # of a downsample's batch norm too the name ends in .bn.weight
                tensor.copy_(value(name, tuple(tensor.shape)))


def macs(net, side):
    total = 0

    def count(module, _, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        else:
            total += module.weight.numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total


def ends(space, net):
    if "resnet" in space:
        smallest = dict(d=0, e=0.2, w=0)
    else:
        smallest = dict(ks=3, e=3, d=2)
    numbers = {}
    for name, choose in [("largest", net.set_max_net), ("smallest", lambda: net.set_active_subnet(**smallest))]:
        choose()
        static = net.get_active_subnet(preserve_weight=False)
        parameters = sum(p.numel() for p in static.parameters())
        numbers[name] = {"params": parameters, "macs": {str(side): macs(static, side) for side in (128, 224)}}
    return numbers


def rounded(values):
    return [float(f"{v:.9g}") for v in values.flatten().tolist()]


def numbers_of(static, side):
    static = static.double()
    fill(static)
    images = value("images", (IMAGES, 3, side, side)).double()
    with torch.no_grad():
        inference = static.eval()(images)
    # as in training with dropout off
    for module in static.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    logits = static(images)
    logits.backward(value("gradient", tuple(logits.shape)).double())
    gradients = {}
    for name, p in static.named_parameters():
        direction = torch.from_numpy(unit("gradient", p.numel())).reshape(p.shape)
        name = name.replace(".mobile_inverted_conv.", ".conv.")
        gradients[name] = rounded(torch.stack([(p.grad * direction).sum(), p.grad.norm()]))
    return {"inference": rounded(inference), "training": rounded(logits.detach()), "gradients": gradients}


def main():
    torch.set_num_threads(2)
    random.seed(5)
    document = {}
    for space, make, side, count in SPACES:
        net = make()
        entry = {"tensors": len(net.state_dict()), "parameters": sum(p.numel() for p in net.parameters())}
        # what counts batches is no tensor of ours
        entry["tensors_without_counts"] = sum(not n.endswith("num_batches_tracked") for n in net.state_dict())
        entry |= {"ends": ends(space, net), "subnetworks": []}
        for _ in range(count):
            sample = net.sample_active_subnet()
            sample = {key: sample[key] for key in ("ks", "e", "d", "w") if key in sample}
            static = net.get_active_subnet(preserve_weight=False)
            counts = {"macs": macs(static, side), "params": sum(p.numel() for p in static.parameters())}
            entry["subnetworks"].append({"sample": {**sample, "r": side}, **counts, **numbers_of(static, side)})
        document[space] = entry
        print(space, {k: v for k, v in entry.items() if k != "subnetworks"})
    path = HERE / "families.json"
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
