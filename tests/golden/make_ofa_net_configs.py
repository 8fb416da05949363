#!/usr/bin/env python3
"""Networks of MIT's `ofa` package, each as the sample that chose it and as the package's own `net.config`.

    python make_ofa_net_configs.py                 # writes ofa_net_configs.jsonl beside itself
    python make_ofa_net_configs.py --check FOLDER  # builds FOLDER/net.config and says whether it describes itself so

Needs ofa and torch. A line of the file is a preset's name, a sample, and the config of the sub-network.
"""

import argparse
import copy
import json
from pathlib import Path

from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
from ofa.imagenet_classification.networks import get_net_by_name

HERE = Path(__file__).resolve().parent
KERNELS, EXPANDS, DEPTHS = [3, 5, 7], [3, 4, 6], [2, 3, 4]
OF_RESNET = {"depth_list": [0, 1, 2], "expand_ratio_list": [0.2, 0.25, 0.35], "width_mult_list": [0.65, 0.8, 1.0]}


def cases():
    inverted = {"ks_list": KERNELS, "expand_ratio_list": EXPANDS, "depth_list": DEPTHS, "dropout_rate": 0.1}
    blocks = {"ks": (KERNELS * 7)[:20], "e": [3, 6, 4, 4] * 5}
    yield "ofa-mbv3-w1.0", OFAMobileNetV3(width_mult=1.0, **inverted), {**blocks, "d": [2, 3, 4, 3, 2]}
    blocks = {"ks": KERNELS * 7, "e": [6, 4, 3] * 7}
    yield "ofa-proxyless-w1.3", OFAProxylessNASNets(width_mult=1.3, **inverted), {**blocks, "d": [4, 2, 2, 3, 4, 1]}
    resnet = OFAResNets(dropout_rate=0, **OF_RESNET)
    for depths, widths in (([2, 0, 1, 2, 0], [2, 0, 1, 2, 0, 1]), ([0, 2, 0, 0, 1], [1, 2, 2, 0, 1, 0])):
        yield "ofa-resnet50", resnet, {"e": [0.2, 0.35, 0.25] * 6, "d": depths, "w": widths}


def check(path):
    written = json.loads(path.read_text())
    network = get_net_by_name(written["name"]).build_from_config(copy.deepcopy(written))
    again = network.config
    assert again["bn"].pop("ws_eps") is None
    print(f"{path}: {'itself again' if again == written else 'ANOTHER network'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    folder = parser.parse_args().check
    if folder:
        check(folder / "net.config")
        return
    lines = []
    for space, supernet, sample in cases():
        supernet.set_active_subnet(**sample)
        config = supernet.get_active_subnet(preserve_weight=False).config
        lines.append(json.dumps({"space": space, "sample": {**sample, "image_size": 160}, "config": config}) + "\n")
    (HERE / "ofa_net_configs.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
