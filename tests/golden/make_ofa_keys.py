#!/usr/bin/env python3
"""The keys that MIT's `ofa` package asks a latency table for, recorded from its own code.

    python make_ofa_keys.py                    # writes ofa_keys.txt beside itself
    python make_ofa_keys.py --check FOLDER     # looks networks up in FOLDER/<width>-<resolution>.yaml; writes nothing

Needs ofa, torch and PyYAML. A block's key depends on its own kernel and expand ratio alone, so nine networks of full
depth, one a pair of them, ask for all that any network of the space does.
"""

import argparse
import itertools
from pathlib import Path

import yaml
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
from ofa.nas.efficiency_predictor.latency_lookup_table import MBv3LatencyTable

HERE = Path(__file__).resolve().parent
WIDTH, RESOLUTION = 1.0, 132  # sides 132, 66, 33, 17, 9, 5: all but one are rounded up


class Asked(dict):
    """Answers every key and remembers it."""

    def __missing__(self, key):
        return self.setdefault(key, {"count": 1, "mean": 1.0, "std": 0.0})


def table(rows):
    # its constructor calls yaml.load without a Loader, which PyYAML has refused since 6.0
    lookup = MBv3LatencyTable.__new__(MBv3LatencyTable)
    lookup.lut = rows
    return lookup


def networks(width):
    supernet = OFAMobileNetV3(width_mult=width, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4])
    for kernel, expand in itertools.product([3, 5, 7], [3, 4, 6]):
        supernet.set_active_subnet(ks=kernel, e=expand, d=4)
        yield supernet.get_active_subnet(preserve_weight=False)


def ask(rows, width, resolution):
    lookup = table(rows)
    for network in networks(width):
        walked = lookup.predict_network_latency(network, resolution)
        configured = lookup.predict_network_latency_given_config(network.config, resolution)
        assert walked == configured, (walked, configured)


def check(path):
    width, resolution = path.stem.split("-")
    rows, asked = yaml.safe_load(path.read_text()), Asked()
    ask(rows, float(width), int(resolution))
    ask(asked, float(width), int(resolution))
    assert all(isinstance(row["mean"], float) and isinstance(row["std"], float) for row in rows.values())
    dumped = yaml.safe_dump(rows)
    print(f"{path.name}: {len(rows)} rows, {len(asked)} asked for, {len(rows.keys() - asked.keys())} never;",
          "as PyYAML writes it" if dumped == path.read_text() else "NOT as PyYAML writes it")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    folder = parser.parse_args().check
    if folder:
        for path in sorted(folder.glob("*.yaml")):
            check(path)
        return
    asked = Asked()
    ask(asked, WIDTH, RESOLUTION)
    (HERE / "ofa_keys.txt").write_text("".join(f"{key}\n" for key in sorted(asked)))


if __name__ == "__main__":
    main()
