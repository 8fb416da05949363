#!/usr/bin/env python3
"""Is an imported supernet the one that PyTorch's `ofa` package has?

    cargo build --release -p supernet -p extract
    python ofa_import.py --family mbv3 --tools ../../target/release

Makes a supernet of the family with random weights, matrices and batch norm statistics, saves it with torch.save, and
imports it. For random sub-networks, compares the logits of random images between `get_active_subnet` in PyTorch, in
eval mode, and `extract export` with `extract predict` (folded batch norms):

- with the statistics in the file (`--inherit-bn`);
- after calibration on the same image files (`set_running_statistics`, and `--calibration-images`). The files have the
  sub-network's resolution, so that nothing is resized, and are one batch.

Prints the largest difference relative to the largest logit. Needs torch, numpy, pillow and `ofa`; CI does not run it.
"""

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
from PIL import Image

MOBILE = dict(ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4])
RESNET = dict(depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35], width_mult_list=[0.65, 0.8, 1.0])

# family: our space, PyTorch's supernet with so many classes
FAMILIES = {
    "mbv3": ("ofa-mbv3-w1.0", lambda n: OFAMobileNetV3(n_classes=n, dropout_rate=0, width_mult=1.0, **MOBILE)),
    "mbv3-w1.2": ("ofa-mbv3-w1.2", lambda n: OFAMobileNetV3(n_classes=n, dropout_rate=0, width_mult=1.2, **MOBILE)),
    "proxyless": ("ofa-proxyless-w1.3", lambda n: OFAProxylessNASNets(n_classes=n, dropout_rate=0, width_mult=1.3, **MOBILE)),
    "resnet50": ("ofa-resnet50", lambda n: OFAResNets(n_classes=n, dropout_rate=0, **RESNET)),
}

RESOLUTIONS = [160, 176, 192, 224]
LEAST_SPREAD = 0.01
CLASSES = 10  # of the image folder to calibrate on


class Tools:
    def __init__(self, folder):
        self.folder = folder

    def run(self, tool, *arguments):
        command = [str(self.folder / tool), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def json(self, tool, *arguments):
        return json.loads(self.run(tool, *arguments, "--json", "--quiet"))


def images_of(count, resolution):
    """Random images with large structures, which differ from each other to a network; white noise hardly does."""
    coarse = torch.randn(count, 3, 5, 5)
    return torch.nn.functional.interpolate(coarse, size=(resolution, resolution), mode="bicubic")


def randomize(net):
    """Scales and shifts as if they had been trained, matrices that are no identities, and the largest network's
    statistics. Channels and pixels that smaller sub-networks do not have weigh little, as after training: else the
    statistics fit none of these, and either nothing of an image reaches their logits or roundings do."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("bias"):
                tensor.normal_(0, 0.1)
            elif name.endswith("_matrix"):
                tensor.add_(0.1 * torch.randn_like(tensor))
            elif ".bn." in name and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 4 and tensor.shape[1] > 8:
                tensor.mul_(torch.exp(-3 * torch.arange(tensor.shape[1]) / tensor.shape[1]).view(1, -1, 1, 1))
            elif tensor.dim() == 4 and tensor.shape[2] == 7:
                tensor[:, :, 2:5, 2:5] *= 4
        norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        momentum = norms[0].momentum
        for norm in norms:
            norm.momentum = 1.0
        net.set_max_net()
        net.train()(images_of(16, RESOLUTIONS[0]))
        for norm in norms:
            norm.momentum = momentum
    return net


def save(net, path, legacy):
    torch.save({"state_dict": net.state_dict(), "epoch": 1}, path, _use_new_zipfile_serialization=not legacy)


def sample(net, resolution, path):
    """A random sub-network, in PyTorch's form on disk, and as PyTorch's network."""
    setting = net.sample_active_subnet()
    path.write_text(json.dumps({**setting, "r": [resolution]}))
    return net.get_active_subnet(preserve_weight=True).eval()


def spread(logits):
    """How far the logits of two images are apart, relative to the largest."""
    return ((logits[0] - logits[1]).abs().max() / logits.abs().max()).item()


def telling_sample(net, resolution, path):
    """A random sub-network and images that it tells apart: with the largest network's statistics some do not, and their
    logits, which are biases alone, would prove nothing."""
    for _ in range(20):
        subnet, images = sample(net, resolution, path), images_of(2, resolution)
        with torch.no_grad():
            if spread(subnet(images)) > LEAST_SPREAD:
                return subnet, images
    raise SystemExit("none of 20 sub-networks tells images apart")


def difference(subnet, model, images, tools, folder):
    """The largest difference of a logit relative to the largest."""
    files = [folder / f"{index}.npy" for index in range(len(images))]
    for file, image in zip(files, images):
        np.save(file, image.numpy())
    predictions = tools.json("extract", "predict", model, *files, "--logits")["predictions"]
    got = torch.tensor([prediction["logits"] for prediction in predictions])
    with torch.no_grad():
        expected = torch.cat([subnet(image[None]) for image in images])
    assert torch.isfinite(expected).all() and spread(expected) > LEAST_SPREAD / 2, "the logits are the images'"
    return ((got - expected).abs().max() / expected.abs().max()).item()


def inherited(family, count, legacy, tools, folder):
    space, make = FAMILIES[family]
    net = randomize(make(1000))
    save(net, folder / "net.pth", legacy)
    said = tools.json("supernet", "import", folder / "net.pth", "--space", space, "--out", folder / "net.safetensors")
    print("import:", {key: said[key] for key in ("container", "tensors", "parameters", "matrices_read", "statistics")})
    for index in range(count):
        resolution = random.choice(RESOLUTIONS)
        subnet, images = telling_sample(net, resolution, folder / "arch.json")
        model = folder / "model"
        tools.run("extract", "export", "--supernet", folder / "net.safetensors", "--arch", folder / "arch.json",
                  "--inherit-bn", "--out", model, "--quiet")
        yield difference(subnet, model, images, tools, folder)


def image_folder(folder, resolution, count):
    """Images on disk, a folder a class; the paths of those to calibrate with."""
    files = []
    for split, images in (("train", count), ("val", CLASSES)):
        for index in range(images):
            file = folder / split / f"class{index % CLASSES}" / f"{index:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = (images_of(1, resolution)[0] * 60 + 128).clamp(0, 255).byte().permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(file)
            files += [file] if split == "train" else []
    return files


def load(file, config):
    mean, std = (torch.tensor(config["input"][key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    return (pixels - mean) / std


def calibrated(family, count, legacy, tools, folder):
    space, make = FAMILIES[family]
    net = randomize(make(CLASSES))
    save(net, folder / "net.pth", legacy)
    toml = folder / "space.toml"
    text = tools.run("supernet", "space", space, "--toml")
    assert "classes = 1000\n" in text
    toml.write_text(text.replace("classes = 1000\n", f"classes = {CLASSES}\n"))
    tools.run("supernet", "import", folder / "net.pth", "--space", toml, "--out", folder / "net.safetensors")
    for index in range(count):
        resolution = random.choice(RESOLUTIONS[:2])
        data = folder / f"images{index}"
        files = image_folder(data, resolution, 40)
        subnet = sample(net, resolution, folder / "arch.json")
        model = folder / "model"
        tools.run("extract", "export", "--supernet", folder / "net.safetensors", "--arch", folder / "arch.json",
                  "--data", f"folder:{data}", "--calibration-images", 200, "--out", model, "--quiet")
        config = json.loads((model / "config.json").read_text())
        images = torch.stack([load(file, config) for file in files])
        set_running_statistics(subnet, [(images, None)])
        yield difference(subnet, model, images[:4], tools, folder)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--family", choices=FAMILIES, default="mbv3")
    arguments.add_argument("--tools", type=Path, default=Path(__file__).resolve().parents[2] / "target" / "release")
    arguments.add_argument("--count", type=int, default=10, help="sub-networks with the statistics of the file")
    arguments.add_argument("--calibrated", type=int, default=10, help="sub-networks that are calibrated")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--legacy", action="store_true", help="save in the container of before PyTorch 1.6")
    arguments = arguments.parse_args()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(arguments.seed)
    tools = Tools(arguments.tools)
    worst = 0.0
    for name, compare, count in (("inherited", inherited, arguments.count), ("calibrated", calibrated, arguments.calibrated)):
        with tempfile.TemporaryDirectory() as folder:
            apart = list(compare(arguments.family, count, arguments.legacy, tools, Path(folder)))
        print(f"{arguments.family} {name}: max relative difference {max(apart, default=0):.2e}, n = {len(apart)}")
        worst = max([worst, *apart])
    if worst > 1e-4:
        raise SystemExit(f"{worst:.2e} is more than 1e-4")


if __name__ == "__main__":
    main()
