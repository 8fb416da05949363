#!/usr/bin/env python3
"""Compiles every CUDA kernel with NVRTC as a program does when it begins, without a GPU.

    python gpu/nvrtc.py libnvrtc.so.13 [80 90 ...]

The library is that of PyPI's nvidia-cuda-nvrtc; the numbers are compute capabilities. Prints how long each took.
"""

import ctypes
import re
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "crates/kernels/src/cuda/source"


def compiled(nvrtc, name, text, options):
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None):
        sys.exit(f"{name}: NVRTC takes no program")
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if failed:
        sys.exit(f"{name} {' '.join(options)}:\n{log.value.decode()}")
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, code)
    return code.raw


def main():
    nvrtc = ctypes.CDLL(sys.argv[1])
    common = (SOURCE / "common.cuh").read_text()
    for capability in sys.argv[2:] or ["80", "90"]:
        for define in [[], ["--define-macro=BF16"]]:
            began, kernels = time.monotonic(), 0
            for path in sorted(SOURCE.glob("*.cu")):
                text = path.read_text().replace('#include "common.cuh"', common)
                options = ["--std=c++17", *define, f"--gpu-architecture=sm_{capability}"]
                # a section of its own for each kernel's code, and its name again in the table of names
                names = set(re.findall(rb"\0\.text\.(\w+)", compiled(nvrtc, path.name, text, options)))
                kernels += len(names)
            kind = "bf16" if define else "f32"
            print(f"sm_{capability} {kind}: {kernels} kernels in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
