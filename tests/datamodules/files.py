"""Small files for the tests."""

import json

import cv2
import numpy as np
from PIL import Image

COLOURS = ("blue", "green", "red")
TRAINED_ON = ["CIFAR10", "Digits", "ImageFolder", "PACS"]
"""Data modules that the fixture ``make`` builds."""


def write_images(folder, classes, count, size):
    """``count`` images of noise for each class, all different, lossless."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            seed = sum(map(ord, str(folder.name))) * 10_000 + label * 100 + i
            noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:03}.png")


SYNSETS = ("n01440764", "n01498041", "n01534433", "n02510455")
"""Of ImageNet, with labels 0, 6, 13 and 388: the second and third are in -A and -R, the last in -R."""


def write_tiny_imagenet(root, count=4):
    """Three classes of Tiny-ImageNet as released: ``count`` images to train on and two to validate on, of each."""
    for synset in SYNSETS[:3]:
        write_images(root / "train" / synset, ["images"], count, (64, 64))
        (root / "train" / synset / f"{synset}_boxes.txt").write_text("boxes\n")
    write_images(root / "val", ["images"], 6, (64, 64))
    lines = [f"{i:03}.png\t{SYNSETS[2 - i % 3]}\t0\t0\t63\t63\n" for i in range(6)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def write_corrupted(root, classes, count, size, corruptions=("fog", "frost"), severities=(1, 2, 3, 4, 5)):
    """Images of noise in the layout of ImageNet-C, the same names in each cell."""
    for corruption in corruptions:
        for severity in severities:
            write_images(root / corruption / str(severity), classes, count, size)
    return root


def truncate(path):
    """Cut a file in half: the header stays, so that opening it works and decoding does not."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_voc(folder):
    """Two images of VOC's layout whose objects are where they are bright; a rim of 255 around."""
    root = folder / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for number, name in enumerate(("a", "b")):
        labels = np.zeros((40 + 10 * number, 60), np.uint8)
        labels[10:30, 15:45] = 255
        labels[12:28, 17:43] = 7 + number
        image = np.where((labels > 0)[..., None], 250, 5).repeat(3, -1).astype(np.uint8)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        mask = Image.fromarray(labels, "P")
        mask.putpalette(list(range(256)) * 3)
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\n")
    return root


def write_mit(folder):
    """Two stimuli of MIT1003's layout, of different sizes, each with one fixated pixel."""
    root = folder / "MIT1003"
    for part in ("ALLSTIMULI", "ALLFIXATIONMAPS"):
        (root / part).mkdir(parents=True)
    for name, size in (("i1", (30, 50)), ("i2", (44, 20))):
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(root / "ALLSTIMULI" / f"{name}.jpeg")
        seen = np.zeros(size, np.uint8)
        seen[5, 7] = 255
        Image.fromarray(seen).save(root / "ALLFIXATIONMAPS" / f"{name}_fixPts.jpg", quality=100)
        Image.fromarray(seen).save(root / "ALLFIXATIONMAPS" / f"{name}_fixMap.jpg")
    return root


def lay_down(path):
    """Store an image on its side, as cameras do, with the orientation that brings it upright."""
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[274] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


FIXATIONS = {
    "1": [[[5.0, 7.0, 200], [30.6, 20.2, 180]], [[9.0, 9.0, 90], [31.0, 20.9, 90]]],
    "2": [[[1, 1, 9], [0, 0, 9]]],
}
"""Of two images of OSIE: three fixations count, two of the first image and one of the second."""


def write_osie(folder, fixations=FIXATIONS):
    """Two stimuli of OSIE's layout, 40 x 30 pixels, and where people looked."""
    root = folder / "osie"
    (root / "images").mkdir(parents=True)
    for number, name in enumerate(FIXATIONS):
        Image.fromarray(np.full((30, 40, 3), 60 + 90 * number, np.uint8)).save(root / "images" / f"{name}.jpg")
    (root / "fixations.json").write_text(json.dumps(fixations))
    return root


def write_videos(root, names, frames=6, side=32, more=0):
    """Two sequences of each perturbation, or so many more, whose frames become brighter."""
    for number, name in enumerate(names):
        for synset in SYNSETS[: 2 + more]:
            (root / name / synset).mkdir(parents=True)
            path = str(root / name / synset / "a.mp4")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 5, (side, side))
            for frame in range(frames):
                image = np.full((side, side, 3), 20 + 30 * frame, np.uint8)
                image[..., 2] = 40 * number  # red, in the order that OpenCV has
                writer.write(image)
            writer.release()
    return root
