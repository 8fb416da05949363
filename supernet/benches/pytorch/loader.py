#!/usr/bin/env python3
"""Times the loading of a folder of images next to torchvision's: decoded, cropped, mirrored, resized, normalized.

    pip install torch torchvision
    cargo build --release -p supernet
    python supernet/benches/pytorch/loader.py [--folder FOLDER] [--rounds 5] [--workers 2]

Without a folder, 600 jpegs of 500 x 375 pixels are made from a seed. Machines drift, so the two take turns, and a ratio
is always of neighbors in time. torchvision runs as its training examples do: ImageFolder, RandomResizedCrop(224),
RandomHorizontalFlip, ToTensor, Normalize, a DataLoader with persistent workers.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parents[3]
SIDE, BATCH = 224, 64


def make_images(folder, classes=4, count=150):
    """Waves and noise, about 80 kB each at quality 90."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        place = folder / "train" / f"class{label}"
        place.mkdir(parents=True)
        for index in range(count):
            width, height = (500, 375) if index % 3 else (375, 500)
            y, x = np.mgrid[0:height, 0:width].astype(np.float32)
            image = 128 + rng.normal(0, 8, (height, width, 1)) + np.zeros((height, width, 3), np.float32)
            for _ in range(12):
                across, down = rng.uniform(0.005, 0.25, 2)
                for channel, phase in enumerate(rng.uniform(0, 6.28, 3)):
                    strength = 60 / (1 + 10 * np.hypot(across, down))
                    image[:, :, channel] += strength * np.sin(across * x + down * y + phase)
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(place / f"{index:04}.jpg", quality=90)


def torchvision_loader(folder, workers):
    views = transforms.Compose([
        transforms.RandomResizedCrop(SIDE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.25] * 3),
    ])
    images = datasets.ImageFolder(str(folder / "train"), views)
    return torch.utils.data.DataLoader(
        images, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)


def theirs(loader):
    """Images a second over an epoch."""
    start, images = time.perf_counter(), 0
    for batch, _ in loader:
        images += len(batch)
    return images / (time.perf_counter() - start)


def ours(folder, workers, steps):
    command = [ROOT / "target/release/supernet", "bench", "--data", f"folder:{folder}", "--resolution", str(SIDE),
               "--batch", str(BATCH), "--steps", str(steps), "--threads", str(workers), "--json", "--quiet"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="with train/<class>/*.jpg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        if arguments.folder is None:
            make_images(folder)
        loader = torchvision_loader(folder, arguments.workers)
        theirs(loader)  # starts the workers
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append((theirs(loader), ours(folder, arguments.workers, len(loader))))
        ratios = [own / other for other, own in rounds]
        other, own = (statistics.median(column) for column in zip(*rounds))
        print(f"torchvision {other:.0f} images/s, supernet {own:.0f} images/s, "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
              f"{arguments.workers} workers, {arguments.rounds} rounds")


if __name__ == "__main__":
    main()
