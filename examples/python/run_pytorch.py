"""Builds an exported folder with PyTorch's `ofa` package: `python run_pytorch.py FOLDER IMAGE.npy` prints the logits as
JSON. FOLDER is of `extract export --format ofa`; IMAGE.npy is [C, H, W] f32, already normalized."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from ofa.imagenet_classification.networks import get_net_by_name
from safetensors.torch import load_file

folder, image = Path(sys.argv[1]), torch.from_numpy(np.load(sys.argv[2]))
config = json.loads((folder / "net.config").read_text())
network = get_net_by_name(config["name"]).build_from_config(config)
# the package's own load_state_dict keeps as it was what is missing
torch.nn.Module.load_state_dict(network, load_file(folder / "model.safetensors"), strict=True)
with torch.no_grad():
    print(json.dumps(network.eval()(image[None])[0].tolist()))
