"""Runs an exported folder with ONNX Runtime: `python run_onnx.py FOLDER IMAGE.npy` prints the logits as JSON.
FOLDER is of `extract export --format onnx`; IMAGE.npy is [C, H, W] f32, already normalised."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(Path(sys.argv[1]) / "model.onnx", providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map  # arch, space, resolution, mean, std, classes, model_hash
(logits,) = session.run(None, {"input": np.load(sys.argv[2])[None]})  # any number of images: [N, C, H, W]
print(f"{facts['arch']}: {json.loads(facts['classes'])[logits[0].argmax()]}", file=sys.stderr)
print(json.dumps(logits[0].tolist()))
