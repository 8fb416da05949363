"""Makes a data set from a seed: 20,000 color images of 32 x 32 pixels, 50 classes, harder than Fashion-MNIST.

Usage: python3 make.py OUT [SEED] [IMAGES]

A class is one of ten outlines filled with one of five textures (10 x 5 = 50), so that neither form nor texture alone is
enough. Outline and ground have random colors, the same distribution for all classes; place, size and angle of the outline vary;
one or two small blobs in other colors distract, and every value has noise. OUT gets the folders train, val and test with one
folder for each class: 70, 10 and 20 % of each class's images, the same files for the same seed. Needs nothing but Python,
and some minutes.
"""

import math
import random
import struct
import sys
import zlib
from pathlib import Path

SIDE = 32
OUTLINES = ["disc", "square", "triangle", "star", "ring", "cross", "hexagon", "crescent", "bar", "heart"]
TEXTURES = ["plain", "stripes", "checks", "dots", "shade"]
SPLITS = [("train", 0.7), ("val", 0.1), ("test", 0.2)]


def polygon(x, y, corners):
    """Whether a point lies within a regular polygon of radius 1."""
    angle = math.atan2(y, x) % (2 * math.pi / corners) - math.pi / corners
    return math.hypot(x, y) * math.cos(angle) < math.cos(math.pi / corners)


def inside(outline, x, y):
    """Whether a point lies within an outline of about radius 1."""
    radius = math.hypot(x, y)
    match outline:
        case "disc":
            return radius < 0.9
        case "square":
            return max(abs(x), abs(y)) < 0.78
        case "triangle":
            return polygon(x, y, 3)
        case "star":
            return radius < 0.68 + 0.32 * math.cos(5 * math.atan2(y, x))
        case "ring":
            return 0.5 < radius < 0.95
        case "cross":
            return min(abs(x), abs(y)) < 0.3 and max(abs(x), abs(y)) < 0.95
        case "hexagon":
            return polygon(x, y, 6)
        case "crescent":
            return radius < 0.95 and math.hypot(x - 0.45, y) > 0.75
        case "bar":
            return abs(x) < 0.95 and abs(y) < 0.38
        case "heart":
            x, y = 1.25 * x, 1.25 * -y + 0.1
            return (x * x + y * y - 0.7) ** 3 < x * x * y * y * y


def shade(texture, x, y):
    """Share of the second color at a point."""
    match texture:
        case "plain":
            return 0.0
        case "stripes":
            return float(math.sin(9 * x) > 0)
        case "checks":
            return float((math.sin(7 * x) > 0) == (math.sin(7 * y) > 0))
        case "dots":
            return float(math.sin(8 * x) * math.sin(8 * y) > 0.35)
        case "shade":
            return min(max(0.5 + 0.6 * x, 0.0), 1.0)


def colors(draw, count):
    """Colors that differ from one another by enough to be seen."""
    found = []
    while len(found) < count:
        color = [draw.uniform(20, 235) for _ in range(3)]
        if all(sum(abs(a - b) for a, b in zip(color, other)) > 140 for other in found):
            found.append(color)
    return found


def image(outline, texture, draw):
    """The pixels of one image, row by row, three bytes each."""
    ground, first, second, *others = colors(draw, 4)
    size = draw.uniform(0.27, 0.44) * SIDE
    at = [SIDE / 2 + draw.uniform(-0.12, 0.12) * SIDE for _ in range(2)]
    angle, turn = draw.uniform(0, 2 * math.pi), draw.uniform(0, 2 * math.pi)
    blobs = [(draw.uniform(0, SIDE), draw.uniform(0, SIDE), draw.uniform(1.5, 3.5)) for _ in range(draw.randint(1, 2))]
    sine, cosine, across, along = math.sin(angle), math.cos(angle), math.sin(turn), math.cos(turn)
    noise = draw.uniform(4, 18)
    out = bytearray()
    for row in range(SIDE):
        for column in range(SIDE):
            dx, dy = (column + 0.5 - at[0]) / size, (row + 0.5 - at[1]) / size
            x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
            color = ground
            if inside(outline, x, y):
                share = shade(texture, along * x + across * y, along * y - across * x)
                color = [a + share * (b - a) for a, b in zip(first, second)]
            elif any((column - left) ** 2 + (row - top) ** 2 < radius**2 for left, top, radius in blobs):
                color = others[0]
            out.extend(min(max(round(value + draw.gauss(0, noise)), 0), 255) for value in color)
    return bytes(out)


def png(pixels):
    """A PNG file of pixels with three bytes each."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + pixels[3 * SIDE * row : 3 * SIDE * (row + 1)] for row in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    each = (int(sys.argv[3]) if len(sys.argv) > 3 else 20_000) // (len(OUTLINES) * len(TEXTURES))
    for outline in OUTLINES:
        for texture in TEXTURES:
            first = 0
            for split, share in SPLITS:
                folder = out / split / f"{outline}-{texture}"
                folder.mkdir(parents=True, exist_ok=True)
                count = each - first if split == SPLITS[-1][0] else round(share * each)
                for number in range(first, first + count):
                    # each image has random numbers of its own, so that more images do not change the first ones
                    draw = random.Random(f"{seed} {outline} {texture} {number}")
                    (folder / f"{number:04}.png").write_bytes(png(image(outline, texture, draw)))
                first += count
    (out / "dataset.toml").write_text("flip = true\n")


main()
