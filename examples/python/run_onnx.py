"""Runs an exported folder with ONNX Runtime: `python run_onnx.py FOLDER IMAGE` prints the logits as JSON.
FOLDER is of `extract export --format onnx`; IMAGE is a file that Pillow reads, or a .npy of [C, H, W] f32 that is
normalized already, of a network for arrays as its training had them. The file model.onnx holds all that is needed."""

import json
import sys
from pathlib import Path

import onnxruntime
import preprocess

session = onnxruntime.InferenceSession(Path(sys.argv[1]) / "model.onnx", providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map  # arch, space, input, classes, model_hash
image = preprocess.array(sys.argv[2], json.loads(facts["input"]))
(logits,) = session.run(None, {"input": image[None]})  # any number of images: [N, C, H, W]
print(f"{facts['arch']}: {json.loads(facts['classes'])[logits[0].argmax()]}", file=sys.stderr)
print(json.dumps(logits[0].tolist()))
