"""What `input` of config.json says happens to an image before the network sees it, with Pillow and numpy."""

import math

import numpy as np

# what a folder means that does not say it, since it was exported before there was a word for it
UNSAID = {"orient": "stored", "grey": "rec709", "resize": "stretch", "filter": "bilinear"}
REC709 = (0.2126, 0.7152, 0.0722, 0)


def array(path, facts):
    """The file as [C, H, W] f32, normalised: an image, or a .npy that holds such an array already."""
    channels, side = facts["channels"], facts["resolution"]
    if str(path).lower().endswith(".npy"):
        values = np.load(path)
        if values.dtype != np.float32 or values.shape != (channels, side, side):
            raise SystemExit(f"{path}: expected f32 {(channels, side, side)}, got {values.dtype} {values.shape}")
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
    size = (side, side)
    if facts["resize"] != "stretch":
        short = math.ceil(side / facts["resize"]["middle"])
        size = (short, short * height // width) if width <= height else (short * width // height, short)
        left, top = (round((length - side) / 2) for length in size)
        box = (left, top, left + side, top + side)
    if facts["filter"] == "bilinear":
        planes = [Image.fromarray(np.asarray(plane, np.float32)) for plane in image.split()]
        planes = [plane.resize(size, Image.Resampling.BILINEAR) for plane in planes]
    else:  # rounded to 8 bits after each pass
        planes = image.resize(size, Image.Resampling.BILINEAR).split()
    planes = [np.asarray(plane.crop(box) if box else plane, np.float32) for plane in planes]
    mean, std = (np.array(facts[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return (np.stack(planes) / np.float32(255) - mean) / std
