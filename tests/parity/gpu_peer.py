#!/usr/bin/env python3
"""Does gpu/peer.py compute what PyTorch's `ofa` package does?

    pip install torch torchvision ofa numpy
    python tests/parity/gpu_peer.py

The same weights in both, in f64: logits and all gradients together of the largest, the smallest and three random
sub-networks, as relative differences.
"""

import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "gpu"), str(ROOT / "supernet/benches/pytorch")]
warnings.filterwarnings("ignore")
import torch  # noqa: E402

for at, place in enumerate(sys.path[:2]):
    # two files are called compare.py: the one wanted here knows the sub-networks
    if place.endswith("pytorch"):
        sys.path.insert(0, sys.path.pop(at))
import compare as cpu  # noqa: E402
from peer import Supernet  # noqa: E402


def pairs(net, ofa):
    """Parameters of both that are the same thing."""
    theirs = dict(ofa.named_parameters())

    def norm(module, name):
        return [(module.weight, theirs[f"{name}.weight"]), (module.bias, theirs[f"{name}.bias"])]

    def block(module, at):
        name = next(name for name in theirs if name.startswith(f"blocks.{at}."))
        name = ".".join(name.split(".")[:3])
        inner, bn = (".conv", "bn.bn") if module.elastic else ("", "bn")
        found = [(module.deep.weight, theirs[f"{name}.depth_conv.conv{inner}.weight"]),
                 (module.narrow.weight, theirs[f"{name}.point_linear.conv{inner}.weight"]),
                 *norm(module.deep_bn, f"{name}.depth_conv.{bn}"), *norm(module.narrow_bn, f"{name}.point_linear.{bn}")]
        if module.elastic:
            found += [(module.wide.weight, theirs[f"{name}.inverted_bottleneck.conv.conv.weight"]),
                      (module.to5, theirs[f"{name}.depth_conv.conv.7to5_matrix"]),
                      (module.to3, theirs[f"{name}.depth_conv.conv.5to3_matrix"]),
                      *norm(module.wide_bn, f"{name}.inverted_bottleneck.bn.bn")]
        if module.squeeze:
            found += [*norm(module.reduce, f"{name}.depth_conv.se.fc.reduce"),
                      *norm(module.widen, f"{name}.depth_conv.se.fc.expand")]
        return found

    blocks = [net.first] + [one for stage in net.stages for one in stage]
    return [(net.stem.weight, theirs["first_conv.conv.weight"]), *norm(net.stem_bn, "first_conv.bn"),
            *[pair for at, one in enumerate(blocks) for pair in block(one, at)],
            (net.last.weight, theirs["final_expand_layer.conv.weight"]), *norm(net.last_bn, "final_expand_layer.bn"),
            (net.mix.weight, theirs["feature_mix_layer.conv.weight"]), *norm(net.classifier, "classifier.linear")]


def apart(got, expected):
    return float(sum(((a - b) ** 2).sum() for a, b in zip(got, expected)) ** 0.5
                 / sum((b ** 2).sum() for b in expected) ** 0.5)


def main():
    torch.manual_seed(0)
    side = cpu.Torch("ofa-mbv3-w1.0", "train", 64, 4, 2, False)
    ofa, net = side.net.double(), Supernet(dropout=0.0).train().double()
    for module in ofa.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    same = pairs(net, ofa)
    assert len(same) == len(list(ofa.parameters())) == len(list(net.parameters()))
    for mine, theirs in same:
        # not the identities that matrices begin with
        theirs.data.add_(0.02 * torch.randn_like(theirs))
        mine.data.copy_(theirs.data)
    worst = [0.0, 0.0]
    for arch in [cpu.LARGEST, cpu.SMALLEST, *cpu.random_archs(3)]:
        outputs = []
        for one in (net, ofa):
            one.zero_grad()
            one.set_active_subnet(**arch.settings())
            outputs.append(one(side.images.double()))
            cpu.smoothed_cross_entropy(outputs[-1], side.labels).backward()
        with_gradients = [pair for pair in same if pair[1].grad is not None]
        assert all(mine.grad is None or theirs.grad is not None for mine, theirs in same)
        found = [apart(outputs[:1], outputs[1:]),
                 apart(*zip(*[(mine.grad, theirs.grad) for mine, theirs in with_gradients]))]
        print(f"{arch.text()[:60]}: logits {found[0]:.1e}, gradients {found[1]:.1e}")
        worst = [max(a, b) for a, b in zip(worst, found)]
    print(f"worst: logits {worst[0]:.1e}, gradients {worst[1]:.1e}")
    sys.exit(int(worst[0] > 1e-10 or worst[1] > 1e-6))


if __name__ == "__main__":
    main()
