"""Runs an exported folder with numpy alone: `python predict.py FOLDER IMAGE` prints the logits as JSON.

IMAGE is a file that Pillow reads, or a .npy of [C, H, W] f32 that is normalized already; of a network for arrays, a .npy as
its training had them. Strides, activations and the order of layers come from the space and the sub-network in
config.json. Unlike `extract predict`, it does not compare the blake3 of the weights with config.json.
"""

import itertools
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
    """The window of each output pixel, with padding kernel/2: [C, H, W] -> [C, H/stride, W/stride, kernel, kernel]."""
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


class Network:
    """Layers that the families share."""

    def __init__(self, folder, config):
        self.config, self.space = config, config["space"]
        self.weights = load_file(folder / "model.safetensors")

    def stages(self):
        """Each stage of the space with its part of the text: `r8:k5e4,k7e6/k3e3` has two."""
        return zip(self.space["stages"], self.config["arch"].split(":", 1)[1].split("/"), strict=True)

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

    def conv_norm(self, x, name, activation, stride=1):
        return self.norm(self.convolution(x, f"{name}.conv", stride), f"{name}.bn", activation)

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
            y = self.conv_norm(y, f"{name}.inverted_bottleneck", activation)
        y = self.depthwise(y, f"{name}.depth_conv.conv", stride)
        y = self.norm(y, f"{name}.depth_conv.bn", activation)
        if f"{name}.depth_conv.se.fc.reduce.weight" in self.weights:
            y = self.squeeze_excite(y, f"{name}.depth_conv.se.fc")
        y = self.conv_norm(y, f"{name}.point_linear", "none")
        return x + y if x.shape == y.shape and stride == 1 else y

    def stem(self, image):
        stem = self.space["stem"]
        return self.conv_norm(image, "first_conv", stem["activation"], stem["stride"])

    def classifier(self, x):
        """[C, 1, 1] -> [classes]."""
        return self.weights["classifier.linear.weight"] @ x[:, 0, 0] + self.weights["classifier.linear.bias"]


class MobileNetV3(Network):
    def blocks(self):
        """Activation and stride of each block."""
        yield self.space["first_block"]["activation"], 1
        for stage, text in self.stages():
            for position in range(len(text.split(","))):
                yield stage["activation"], stage["stride"] if position == 0 else 1

    def logits(self, image):
        """[C, H, W] -> [classes]."""
        x, head = self.stem(image), self.space["head"]["activation"]
        for index, (activation, stride) in enumerate(self.blocks()):
            x = self.block(x, f"blocks.{index}.conv", activation, stride)
        x = self.conv_norm(x, "final_expand_layer", head)
        x = x.mean((1, 2), keepdims=True)
        return self.classifier(ACTIVATIONS[head](self.convolution(x, "feature_mix_layer.conv")))


class OperatorChoice(Network):
    def logits(self, image):
        """[C, H, W] -> [classes]. Layers of a kind are numbered as they stand."""
        x = self.stem(image)
        numbers = {kind: itertools.count() for kind in ("mbconv", "conv", "project")}
        for stage, text in self.stages():
            x = self.stage(x, stage, text, lambda kind: f"{kind}.{next(numbers[kind])}")
        return self.classifier(x.mean((1, 2), keepdims=True))

    def stage(self, x, stage, text, next_name):
        """`+:i3e4,c,s` is an inverted residual, a convolution and a skipped block, and their input added to what they make."""
        before = x
        for position, block in enumerate(text.removeprefix("+:").split(",")):
            stride = stage["stride"] if position == 0 else 1
            if block == "c":
                x = self.conv_norm(x, next_name("conv"), stage["activation"], stride)
            elif block != "s":
                x = self.block(x, f"{next_name('mbconv')}.conv", stage["activation"], stride)
        if not text.startswith("+:"):
            return x
        same = stage["stride"] == 1 and before.shape == x.shape
        return x + (before if same else self.conv_norm(before, next_name("project"), "none", stage["stride"]))


class DsCnn(Network):
    def logits(self, image):
        """[C, H, W] -> [classes]. `r40x101:w1:k3e1,k5e1/w0.5:k3e1` is a stage of two blocks and a stage of one."""
        x = self.stem(image)
        strides = [
            (stage["activation"], stage["stride"] if position == 0 else 1)
            for stage, text in self.stages()
            for position in range(len(text.split(",")))
        ]
        for index, (activation, stride) in enumerate(strides):
            name = f"blocks.{index}"
            x = self.norm(self.depthwise(x, f"{name}.depthwise.conv", stride), f"{name}.depthwise.bn", activation)
            x = self.conv_norm(x, f"{name}.pointwise", activation)
        return self.classifier(x.mean((1, 2), keepdims=True))


class DenseCell(Network):
    def logits(self, image):
        """[C, H, W] -> [classes]. `r32:|nor_conv_3x3~0|+|none~0|skip_connect~1|` is a cell of three nodes."""
        text = self.config["arch"].split(":", 1)[1]
        edges = [[edge.split("~")[0] for edge in node.strip("|").split("|")] for node in text.split("+")]
        self.numbers = {}
        x = self.conv_norm(image, "first_conv", "none")
        for stage in range(len(self.space["cell"]["channels"])):
            if stage > 0:
                side = self.convolution(self.pool(x, 2, 2, np.nanmean), f"shortcut.{stage - 1}.conv")
                for part, stride in (("reduction_a", 2), ("reduction_b", 1)):
                    x = self.conv_norm(np.maximum(x, 0), f"{part}.{stage - 1}", "none", stride)
                x = side + x
            for _ in range(self.space["cell"]["cells"]):
                x = self.cell(x, edges)
        return self.classifier(self.norm(x, "last_norm.bn", "relu").mean((1, 2), keepdims=True))

    def cell(self, x, edges):
        """A node is the sum of its edges; one that no later node reads has no layers."""
        last = len(edges)
        read = {last}
        for node in reversed(range(1, last)):
            if any(to in read and edges[to - 1][node] != "none" for to in range(node + 1, last + 1)):
                read.add(node)
        nodes = {0: x}
        for to in sorted(read):
            terms = [self.edge(nodes[start], name) for start, name in enumerate(edges[to - 1]) if name != "none"]
            nodes[to] = sum(terms, np.zeros_like(x))
        return nodes[last]

    def edge(self, x, name):
        """Layers of an operator are numbered as they stand."""
        if name == "skip_connect":
            return x
        if "pool" in name:
            return self.pool(x, 3, 1, np.nanmean if name == "avg_pool_3x3" else np.nanmax)
        number = self.numbers[name] = self.numbers.get(name, -1) + 1
        return self.conv_norm(np.maximum(x, 0), f"{name}.{number}", "none")

    def pool(self, x, side, stride, reduce):
        """What `reduce` makes of each window's values that lie in the map."""
        before, after = (side - 1) // 2, side // 2
        padded = np.pad(x, ((0, 0), (before, after), (before, after)), constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
        return reduce(windows[:, ::stride, ::stride], (3, 4))


class SkipLayers(DenseCell):
    def logits(self, image):
        """[C, H, W] -> [classes]. `r32:conv_3x3/avg_pool_3x3+0` is two layers; the stem's output is added to the second's."""
        layers = [part.split("+") for part in self.config["arch"].split(":", 1)[1].split("/")]
        layers = [(name, [int(earlier) for earlier in added]) for name, *added in layers]
        self.numbers = {}
        outputs = [self.conv_norm(image, "first_conv", "none")]
        for at, (name, added) in enumerate(layers):
            if at in self.space["layers"]["reductions"]:
                read = {earlier for _, later in layers[at:] for earlier in later} | {at}
                outputs = [self.reduction(output) if earlier in read else None for earlier, output in enumerate(outputs)]
            x = self.operator(outputs[-1], name)
            for earlier in added:
                x = x + outputs[earlier]
            outputs.append(self.norm(x, f"{self.next_name('layer_norm')}.bn", "none") if at > 0 else x)
        return self.classifier(outputs[-1].mean((1, 2), keepdims=True))

    def next_name(self, name):
        """Layers of an operator are numbered as they stand."""
        number = self.numbers[name] = self.numbers.get(name, -1) + 1
        return f"{name}.{number}"

    def operator(self, x, name):
        x = self.conv_norm(x, self.next_name(f"{name}_in"), "relu")
        if "pool" in name:
            return self.pool(x, 3, 1, np.nanmean if name == "avg_pool_3x3" else np.nanmax)
        name = self.next_name(name)
        if name.startswith("conv"):
            return self.conv_norm(x, name, "relu")
        x = self.norm(self.depthwise(x, f"{name}.depthwise.conv", 1), f"{name}.depthwise.bn", "relu")
        return self.conv_norm(x, f"{name}.pointwise", "relu")

    def reduction(self, x):
        """Two convolutions of every second place, the second's one further down and right, side by side."""
        name = self.next_name("reduction")
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1)))[:, 1:, 1:]
        halves = [self.convolution(part, f"{name}.{half}", 2) for half, part in (("even", x), ("odd", padded))]
        return self.norm(np.concatenate(halves), f"{name}.bn", "none")


FAMILIES = {
    "skip-layers": SkipLayers,
    "mobilenet-v3": MobileNetV3,
    "operator-choice": OperatorChoice,
    "ds-cnn": DsCnn,
    "dense-cell": DenseCell,
}


def network_of(folder):
    config = json.loads((folder / "config.json").read_text())
    kind = [config["kind"], config["version"], config["space"]["family"]]
    if kind not in [["model", version, family] for version in (1, 2, 3, 4) for family in FAMILIES]:
        sys.exit(f"{folder}: expected a model of version 1 to 4, of {' or '.join(FAMILIES)}, got {kind}")
    return FAMILIES[kind[2]](folder, config)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python predict.py FOLDER IMAGE")
    network = network_of(Path(sys.argv[1]))
    print(json.dumps(network.logits(preprocess.array(sys.argv[2], network.config["input"])).tolist()))


if __name__ == "__main__":
    main()
