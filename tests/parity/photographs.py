#!/usr/bin/env python3
"""Does `extract predict` see a photograph as torchvision's evaluation does?

    pip install torch torchvision ofa numpy safetensors onnxruntime scikit-learn
    BIN=target/release python tests/parity/photographs.py

One photograph (scikit-learn's china.jpg) in four aspect ratios and five EXIF orientations, as PNG and as JPEG. PyTorch:
exif_transpose, Resize(ceil(r / 0.875)), CenterCrop(r), ToTensor, Normalize, and a sub-network of
once-for-all-mbv3-w1.0 with random weights, imported and exported here with its statistics. Printed are the largest
differences of a logit, relative to the largest logit: of `extract predict`, of the numpy and ONNX examples, and beside them what
it would be if the image were squeezed into the square, or not turned.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from sklearn.datasets import load_sample_image  # noqa: E402
from torchvision import transforms as T  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("BIN", ROOT / "target/release")).resolve()
SIDE = 160
STATISTICS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def run(*command):
    done = subprocess.run([str(word) for word in command], check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{command[0]} {command[1]}: {done.stderr.decode()}")
    return json.loads(done.stdout)


def network(folder, photograph):
    """A sub-network in PyTorch, and exported."""
    torch.manual_seed(0)
    net = OFAMobileNetV3(width_mult=1.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4], dropout_rate=0)
    # statistics of the sub-network's own on crops of the photograph: else its scores hardly depend on the image
    net.set_active_subnet(ks=7, e=6, d=2)
    net.train()
    crops = T.Compose([T.RandomResizedCrop(SIDE, (0.2, 1.0)), T.ToTensor(), T.Normalize(*STATISTICS)])
    with torch.no_grad():
        for _ in range(40):
            net(torch.stack([crops(photograph) for _ in range(8)]))
    torch.save({"state_dict": net.state_dict()}, folder / "net.pth")
    run(BIN / "supernet", "import", folder / "net.pth", "--space", "ofa-mbv3-w1.0", "--out", folder / "s.safetensors", "--json")
    run(BIN / "extract", "export", "--supernet", folder / "s.safetensors", "--arch", f"r{SIDE}:" + "/".join(["k7e6,k7e6"] * 5),
        "--inherit-bn", "--format", "onnx", "--out", folder / "model", "--json")
    return net.get_active_subnet(preserve_weight=True).eval()


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = T.Compose([T.Resize(math.ceil(SIDE / 0.875)), T.CenterCrop(SIDE), T.ToTensor(),
                          T.Normalize(*STATISTICS)])
        photograph = Image.fromarray(load_sample_image("china.jpg"))
        net = network(folder, photograph)
        shapes = {"3:2": (640, 427), "1:1": (400, 400), "16:9": (640, 360), "9:16": (240, 427)}
        squeezed = T.Compose([T.Resize((SIDE, SIDE)), *view.transforms[2:]])
        print(f"{'':12}{'predict':>10}{'numpy':>10}{'onnx':>10}{'squeezed':>10}{'unturned':>10}   largest of five orientations")
        for kind in ("png", "jpg"):
            for shape, (width, height) in shapes.items():
                left = (photograph.width - width) // 2
                part = photograph.crop((left, 0, left + width, height))
                worst = [0.0] * 5
                for orientation in (1, 3, 6, 8, 5):
                    exif = Image.Exif()
                    exif[0x0112] = orientation
                    path = folder / f"p.{kind}"
                    part.save(path, exif=exif, **({"quality": 92} if kind == "jpg" else {}))
                    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
                    with torch.no_grad():
                        expected = net(view(upright)[None])[0].numpy()
                        others = [net(squeezed(upright)[None])[0].numpy(), net(view(Image.open(path).convert("RGB"))[None])[0].numpy()]
                    predicted = run(BIN / "extract", "predict", folder / "model", path, "--logits", "--json")
                    scripts = [run(sys.executable, ROOT / f"examples/python/{script}.py", folder / "model", path)
                               for script in ("predict", "run_onnx")]
                    for at, logits in enumerate([predicted["predictions"][0]["logits"], *scripts, *others]):
                        worst[at] = max(worst[at], float(np.abs(np.array(logits) - expected).max() / np.abs(expected).max()))
                print(f"{kind} {shape:8}" + "".join(f"{difference:10.1e}" for difference in worst))


if __name__ == "__main__":
    main()
