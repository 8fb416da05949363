"""Runs an exported folder with numpy alone: `python predict.py FOLDER IMAGE` prints the logits as JSON.

IMAGE is a file that Pillow reads, or a .npy of [C, H, W] f32 that is normalised already; of a network for arrays, a .npy as
its training had them. What the weights do not tell
by their shapes, that is strides and activations, comes from the space in config.json. One thing is left out
that `extract predict` does: it refuses weights whose blake3 is not the one in config.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import preprocess
from safetensors.numpy import load_file

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "h_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "h_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def patches(x, kernel, stride):
    """What each output pixel sees, with padding kernel/2: [C, H, W] -> [C, H/stride, W/stride, kernel, kernel]."""
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


class Network:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.space = self.config["space"]
        kind = [self.config["kind"], self.config["version"], self.space["family"]]
        if kind not in [["model", version, family] for version in (1, 2, 3, 4) for family in FAMILIES]:
            sys.exit(f"{folder}: expected a model of version 1 to 4, of {' or '.join(FAMILIES)}, got {kind}")
        self.weights = load_file(folder / "model.safetensors")

    def convolution(self, x, name, stride=1):
        """Dense, [I, H, W] -> [O, H/stride, W/stride]. No convolution has a bias, but squeeze-and-excite's."""
        weight = self.weights[f"{name}.weight"]  # [O, I, k, k]
        return np.einsum("ihwyx,oiyx->ohw", patches(x, weight.shape[-1], stride), weight, optimize=True)

    def depthwise(self, x, name, stride):
        weight = self.weights[f"{name}.weight"]  # [C, 1, k, k]
        return np.einsum("chwyx,cyx->chw", patches(x, weight.shape[-1], stride), weight[:, 0], optimize=True)

    def norm(self, x, name, activation):
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, var = (self.weights[f"{name}.{part}"][:, None, None] for part in parts)
        return ACTIVATIONS[activation]((x - mean) / np.sqrt(var + self.space["batch_norm_epsilon"]) * gamma + beta)

    def squeeze_excite(self, x, name):
        factor = x.mean((1, 2), keepdims=True)  # [C, 1, 1]
        for part, activation in (("reduce", "relu"), ("expand", "h_sigmoid")):
            bias = self.weights[f"{name}.{part}.bias"][:, None, None]
            factor = ACTIVATIONS[activation](self.convolution(factor, f"{name}.{part}") + bias)
        return x * factor

    def block(self, x, name, activation, stride):
        """Inverted residual: expansion, depthwise convolution, squeeze-and-excite, projection."""
        y = x
        if f"{name}.inverted_bottleneck.conv.weight" in self.weights:
            y = self.convolution(y, f"{name}.inverted_bottleneck.conv")
            y = self.norm(y, f"{name}.inverted_bottleneck.bn", activation)
        y = self.depthwise(y, f"{name}.depth_conv.conv", stride)
        y = self.norm(y, f"{name}.depth_conv.bn", activation)
        if f"{name}.depth_conv.se.fc.reduce.weight" in self.weights:
            y = self.squeeze_excite(y, f"{name}.depth_conv.se.fc")
        y = self.norm(self.convolution(y, f"{name}.point_linear.conv"), f"{name}.point_linear.bn", "none")
        return x + y if x.shape == y.shape and stride == 1 else y

    def blocks(self):
        """Activation and stride of each block. `r8:k5e4,k7e6/k3e3` is a stage of two blocks and a stage of one."""
        yield self.space["first_block"]["activation"], 1
        for stage, text in zip(self.space["stages"], self.config["arch"].split(":")[1].split("/"), strict=True):
            for position in range(len(text.split(","))):
                yield stage["activation"], stage["stride"] if position == 0 else 1

    def logits(self, image):
        """[C, H, W] -> [classes]."""
        stem, head = self.space["stem"], self.space["head"]["activation"]
        x = self.convolution(image, "first_conv.conv", stem["stride"])
        x = self.norm(x, "first_conv.bn", stem["activation"])
        for index, (activation, stride) in enumerate(self.blocks()):
            x = self.block(x, f"blocks.{index}.conv", activation, stride)
        x = self.norm(self.convolution(x, "final_expand_layer.conv"), "final_expand_layer.bn", head)
        x = x.mean((1, 2), keepdims=True)
        x = ACTIVATIONS[head](self.convolution(x, "feature_mix_layer.conv"))
        return self.weights["classifier.linear.weight"] @ x[:, 0, 0] + self.weights["classifier.linear.bias"]


    def separable_logits(self, image):
        """[C, H, W] -> [classes]. `r40x101:w1:k3e1,k5e1/w0.5:k3e1` is a stage of two blocks and a stage of one."""
        stem = self.space["stem"]
        x = self.convolution(image, "first_conv.conv", stem["stride"])
        x = self.norm(x, "first_conv.bn", stem["activation"])
        stages = self.config["arch"].split(":", 1)[1].split("/")
        strides = [
            (stage["activation"], stage["stride"] if position == 0 else 1)
            for stage, text in zip(self.space["stages"], stages, strict=True)
            for position in range(len(text.split(",")))
        ]
        for index, (activation, stride) in enumerate(strides):
            name = f"blocks.{index}"
            x = self.norm(self.depthwise(x, f"{name}.depthwise.conv", stride), f"{name}.depthwise.bn", activation)
            x = self.norm(self.convolution(x, f"{name}.pointwise.conv"), f"{name}.pointwise.bn", activation)
        x = x.mean((1, 2))
        return self.weights["classifier.linear.weight"] @ x + self.weights["classifier.linear.bias"]


FAMILIES = {"mobilenet-v3": Network.logits, "ds-cnn": Network.separable_logits}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python predict.py FOLDER IMAGE")
    network = Network(Path(sys.argv[1]))
    image = preprocess.array(sys.argv[2], network.config["input"])
    print(json.dumps(FAMILIES[network.space["family"]](network, image).tolist()))


if __name__ == "__main__":
    main()
