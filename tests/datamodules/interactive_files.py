"""Small data sets of interactive segmentation in their real layouts."""

import json

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (40, 60)


def blob(top, left, height=12, width=14, size=SIZE):
    mask = np.zeros(size, dtype=np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def write_image(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_folder(root, parts=("train", "test"), images=5):
    """Two objects on each image, the second a file of its own."""
    for part in parts:
        for number in range(images):
            name = f"im{number}"
            write_image(root / part / "images" / f"{name}.jpg", number)
            write_mask(root / part / "masks" / f"{name}#0.png", 255 * blob(3, 4))
            write_mask(root / part / "masks" / f"{name}#1.png", 255 * blob(20, 30))
    return root


def write_grabcut(root):
    for number, suffix in enumerate(("jpg", "bmp")):
        write_image(root / "data_GT" / f"a{number}.{suffix}", number)
        mask = 255 * blob(10, 20)
        mask[9, 20:34] = 128
        write_mask(root / "boundary_GT" / f"a{number}.bmp", mask)
    return root


def write_berkeley(root):
    write_image(root / "images" / "12003.jpg")
    write_mask(root / "masks" / "12003#1.png", 255 * blob(3, 4))
    write_mask(root / "masks" / "12003#2.png", 255 * blob(20, 30))
    return root


def write_davis(root):
    write_image(root / "img" / "bear_1.jpg")
    mask = blob(10, 20)[..., None] * np.array([0, 90, 3], dtype=np.uint8)
    write_mask(root / "gt" / "bear_1.png", mask)
    return root


def write_davis585(root):
    """An object whose masks to start from are a part of it, and the background around it."""
    write_image(root / "bear" / "00009.jpg")
    write_mask(root / "bear" / "object1_00009.png", 255 * blob(10, 20))
    write_mask(root / "bear" / "init_sp_object1_00009.png", 255 * blob(10, 20, 6))
    write_mask(root / "bear" / "init_stm_object1_00009.png", 255 * blob(8, 18, 18, 20))
    return root


def write_hqseg44k(root):
    for place, (images, masks) in enumerate(
        [
            ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
            ("thin_object_detection/ThinObject5K/images_test", "thin_object_detection/ThinObject5K/masks_test"),
            ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
            ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
        ]
    ):
        write_image(root / images / f"a{place}.jpg", place)
        write_mask(root / masks / f"a{place}.png", 200 * blob(10, 20, 12 + place))
    return root


def write_sbd(root):
    """Object 1 of an image fills its box, object 2 is a thin angle."""
    (root / "inst").mkdir(parents=True)
    for number in range(4):
        write_image(root / "img" / f"s{number}.jpg", number)
        labels = blob(3, 4)
        labels[18, 20:59] = 2
        labels[18:39, 20] = 2
        instances = np.empty((1, 1), dtype=[("Segmentation", object), ("Categories", object)])
        instances[0, 0] = (labels, np.array([[1], [2]]))
        savemat(root / "inst" / f"s{number}.mat", {"GTinst": instances})
    (root / "train.txt").write_text("s0\ns1\ns2\n")
    (root / "val.txt").write_text("s3\n")
    return root


def write_voc_instances(root, palette=True):
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for number in range(4):
        write_image(root / "JPEGImages" / f"v{number}.jpg", number)
        labels = blob(3, 4) + 2 * blob(20, 30)
        labels[2, 4:18] = 255 if palette else 220
        mask = Image.fromarray(labels, "P" if palette else "L")
        if palette:
            mask.putpalette(list(range(256)) * 3)
        (root / "SegmentationObject").mkdir(exist_ok=True)
        mask.save(root / "SegmentationObject" / f"v{number}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("v0\nv1\nv2\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("v3\n")
    return root


def write_camvid(root):
    """A large and a small car, and a bicyclist that touches the large car."""
    for part in ("train", "val", "test"):
        write_image(root / "images" / part / "c0.jpg")
        labels = np.full(SIZE, 3, dtype=np.uint8)
        labels[2:14, 2:20] = 8
        labels[30:32, 30:32] = 8
        labels[2:14, 20:34] = 10
        labels[0] = 11
        write_mask(root / "annotations" / part / "c0.png", labels)
    return root


def box_polygon(top, left, height, width):
    """x1, y1, x2, y2, ... of a rectangle, a little off the pixels."""
    bottom, right = top + height - 1, left + width - 1
    return [left + 0.3, top - 0.2, right + 0.2, top + 0.1, right - 0.3, bottom + 0.4, left, bottom]


def write_lvis(root):
    """Objects 1 and 2 are apart, 3 is mostly on 1 (left out), 4 covers a part of 2."""
    rectangles = [(3, 4, 12, 14), (20, 30, 12, 14), (4, 5, 10, 10), (26, 30, 14, 14)]
    for part in ("train", "val"):
        images = [{"id": 7 + n, "height": 40, "width": 60, "coco_url": f"http://x/{n:03}.jpg"} for n in range(3)]
        for number in range(3):
            write_image(root / ("train" if number == 1 else part) / "images" / f"{number:03}.jpg", number)
        annotations = [
            {"image_id": 7 + n, "area": r[2] * r[3], "segmentation": [box_polygon(*r)]}
            for n in (0, 1)
            for r in rectangles
        ]
        content = {"images": images, "annotations": annotations}
        (root / part / f"lvis_{part}.json").write_text(json.dumps(content))
    return root
