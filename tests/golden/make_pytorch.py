#!/usr/bin/env python3
"""Files of torch.save in both of its containers, for the reader's tests.

    python make_pytorch.py           # writes pytorch_zip.pth and pytorch_legacy.pth beside itself
    python make_pytorch.py --seeds   # writes fuzz/seeds/pytorch/{zip,legacy}.pth, smaller ones

Needs torch and numpy. Values are the formula u(name, index) of make_golden.py, and q = floor(64 u) where a type holds
no such number:

    f32, f64    u            i8, i16, i32, i64    q           bool    q >= 0
    f16, bf16   q / 64       u8                   q + 64
"""

import argparse
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from make_golden import unit

HERE = Path(__file__).resolve().parent
SEEDS = HERE.parent.parent / "fuzz" / "seeds" / "pytorch"

# name, type, shape
PLAIN = [
    ("f32", torch.float32, (3, 4, 2)),
    ("f64", torch.float64, (5,)),
    ("f16", torch.float16, (2, 3)),
    ("bf16", torch.bfloat16, (3, 2)),
    ("i64", torch.int64, (7,)),
    ("i32", torch.int32, (2, 2)),
    ("i16", torch.int16, (3,)),
    ("i8", torch.int8, (4,)),
    ("u8", torch.uint8, (4,)),
    ("bool", torch.bool, (9,)),
    ("scalar", torch.float32, ()),
    ("empty", torch.float32, (0, 3)),
]


def tensor(name, dtype, shape):
    u = unit(name, math.prod(shape))
    q = np.floor(64 * u)
    if dtype in (torch.float32, torch.float64):
        values = u
    elif dtype in (torch.float16, torch.bfloat16):
        values = q / 64
    elif dtype == torch.bool:
        values = q >= 0
    else:
        values = q + 64 if dtype == torch.uint8 else q
    return torch.from_numpy(values).reshape(shape).to(dtype)


def checkpoint():
    state = OrderedDict((name, tensor(name, dtype, shape)) for name, dtype, shape in PLAIN)
    base = tensor("base", torch.float32, (4, 6))
    state["turned"] = base.t()  # strides [1, 6], the same storage
    state["part"] = base[1:3, 2:5]  # offset 8
    state["repeated"] = tensor("row", torch.float32, (1, 3)).expand(2, 3)  # stride 0
    state["parameter"] = torch.nn.Parameter(tensor("parameter", torch.float32, (2, 2)))
    optimizer = {"state": {0: {"step": 5, "momentum_buffer": None}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"state_dict": state, "epoch": 3, "best_acc": 0.5, "optimizer": optimizer, "name": "net", "size": base.size()}


def seed():
    state = OrderedDict()
    state["module.first_conv.conv.weight"] = tensor("w", torch.float32, (2, 1, 3, 3))
    state["module.first_conv.bn.bn.weight"] = tensor("b", torch.float16, (2,))
    state["module.first_conv.bn.bn.num_batches_tracked"] = torch.tensor(7)
    return {"state_dict": state, "epoch": 3}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", action="store_true")
    if arguments.parse_args().seeds:
        SEEDS.mkdir(exist_ok=True)
        files, object = (SEEDS / "zip.pth", SEEDS / "legacy.pth"), seed()
    else:
        files, object = (HERE / "pytorch_zip.pth", HERE / "pytorch_legacy.pth"), checkpoint()
    torch.save(object, files[0])
    torch.save(object, files[1], _use_new_zipfile_serialization=False)
    for file in files:
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
