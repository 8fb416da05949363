"""The preprocessing that `input` of config.json describes, with Pillow and numpy."""

import math

import numpy as np

# defaults of folders that were exported before these fields existed
UNSAID = {"orient": "stored", "grey": "rec709", "resize": "stretch", "filter": "bilinear"}
REC709 = (0.2126, 0.7152, 0.0722, 0)


def array(path, facts):
    """The file as [C, H, W] f32, normalized: an image, or a .npy that holds such an array already; of a network for arrays a
    .npy as its training had them, [H, W] or [C, H, W]."""
    channels, resolution = facts["channels"], str(facts["resolution"])
    # a number where the input is square, else such as 40x101
    rows, columns = (int(side) for side in (resolution.split("x") * 2)[:2])
    if facts.get("values") == "floats":
        return floats(path, facts, (columns, rows))
    if str(path).lower().endswith(".npy"):
        values = np.load(path)
        if values.dtype != np.float32 or values.shape != (channels, rows, columns):
            raise SystemExit(f"{path}: expected f32 {(channels, rows, columns)}, got {values.dtype} {values.shape}")
        return values
    from PIL import Image, ImageOps

    facts = UNSAID | facts
    image = Image.open(path)
    if facts["orient"] == "exif":
        image = ImageOps.exif_transpose(image)
    grey = image.mode in ("1", "L", "LA")
    image = image.convert("RGB")
    if channels == 1:
        image = image.convert("L", REC709) if facts["grey"] == "rec709" and not grey else image.convert("L")
    (width, height), box = image.size, None
    size = (columns, rows)
    if facts["resize"] != "stretch":
        share = facts["resize"]["middle"]
        wide, tall = math.ceil(columns / share), math.ceil(rows / share)
        if width * rows <= height * columns:
            size = (wide, max(tall, wide * height // width))
        else:
            size = (max(wide, tall * width // height), tall)
        left, top = (round((length - shown) / 2) for length, shown in zip(size, (columns, rows)))
        box = (left, top, left + columns, top + rows)
    if facts["filter"] == "bilinear":
        planes = [Image.fromarray(np.asarray(plane, np.float32)) for plane in image.split()]
        planes = [plane.resize(size, Image.Resampling.BILINEAR) for plane in planes]
    else:  # rounded to 8 bits after each pass
        planes = image.resize(size, Image.Resampling.BILINEAR).split()
    planes = [np.asarray(plane.crop(box) if box else plane, np.float32) for plane in planes]
    mean, std = (np.array(facts[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return (np.stack(planes) / np.float32(255) - mean) / std


def floats(path, facts, size):
    """An array of any numbers, resized to `size` (columns, rows) where it has another, and normalized as it is."""
    planes = np.load(path).astype(np.float32)
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or len(planes) != facts["channels"]:
        raise SystemExit(f"{path}: expected {facts['channels']} channels, got {planes.shape}")
    if planes.shape[:0:-1] != size:
        if facts["resize"] != "stretch":
            raise SystemExit(f"{path}: expected an array of {size[1]} x {size[0]}, got {planes.shape}")
        from PIL import Image

        planes = [Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR) for plane in planes]
        planes = np.stack([np.asarray(plane, np.float32) for plane in planes])
    mean, std = (np.array(facts[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return (planes - mean) / std
