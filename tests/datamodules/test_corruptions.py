"""The corruptions: against the authors' figures, another implementation, and twins written down naively."""

import csv
import pickle
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from skimage.color import hsv2rgb, rgb2hsv
from skimage.util import random_noise

import datamodules.corruptions.textures as textures
from attention_zoo.errors import InputError
from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SCALES, Corruption, Picture, corrupt, scale_for
from datamodules.corruptions.blur import gaussian_blur, shuffle
from datamodules.corruptions.parameters import PARAMETERS
from datamodules.corruptions.pixels import zoom_into_centre

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
SIDES = {"imagenet": 224, "tiny": 64, "cifar": 32}
FIXED = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
"""Those that nothing in is random."""


def photo(height, width=None):
    """A cat, uint8 (height, width, 3)."""
    cat = Image.fromarray(skimage.data.chelsea()).crop((100, 20, 380, 300))
    return np.array(cat.resize((width or height, height), Image.BILINEAR))


def noise_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def change(a, b):
    return np.abs(a.astype(int) - b.astype(int))


class Draws:
    """numpy.random with its old names, drawing from a Generator, for code that knows no other."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __getattr__(self, name):
        return getattr(self.rng, name)

    def randint(self, low, high=None, size=None):
        return self.rng.integers(low, high, size)

    def seed(self, seed):
        pass


class Numpy:
    """numpy with other random numbers."""

    def __init__(self, seed):
        self.random = Draws(seed)

    def __getattr__(self, name):
        return getattr(np, name)


@pytest.fixture
def other(monkeypatch):
    """The same corruption of the package imagecorruptions-imaug, with our random numbers."""
    module = import_module("imagecorruptions.corruptions")
    loop = module._shuffle_pixels_njit_glass_blur.py_func
    monkeypatch.setattr(module, "_shuffle_pixels_njit_glass_blur", loop)

    def corrupted(image, name, severity, seed):
        monkeypatch.setattr(module, "np", Numpy(seed))
        arguments = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
        return np.uint8(getattr(module, name)(Image.fromarray(image), severity, **arguments))

    return corrupted


class TestAgainstOthers:
    TOLERANCE = {"fog": 1, "motion_blur": 1, "zoom_blur": 1, "snow": 3, "spatter": 1}
    """Levels, where that package is not exactly the authors'; its elastic_transform and frost are others altogether."""

    @pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("name", [name for name in ALL if name not in ("elastic_transform", "frost")])
    def test_same_image(self, other, name, severity):
        image = photo(72)  # of other sizes that package does not cut out the middle of what it enlarges
        ours = corrupt(image, name, severity, seed=severity)
        difference = change(ours, other(image, name, severity, severity))
        assert difference.max() <= self.TOLERANCE.get(name, 0)
        assert difference.mean() < 1

    @pytest.mark.parametrize("name", ["glass_blur", "motion_blur", "snow", "fog", "spatter"])
    def test_same_image_in_full_size(self, other, name):
        image = photo(224)
        difference = change(corrupt(image, name, 3, seed=0), other(image, name, 3, 0))
        assert difference.max() <= self.TOLERANCE.get(name, 0)

    @pytest.mark.parametrize("scale", SCALES)
    def test_as_strong_as_the_authors_own(self, scale):
        """``released_corruptions.csv``: mean |change| of the cat by the authors' scripts, seeded with the severity."""
        with open(Path(__file__).with_name("released_corruptions.csv")) as file:
            rows = {row["corruption"]: row for row in csv.DictReader(file) if row["scale"] == scale}
        assert set(rows) == set(ALL)
        image = photo(SIDES[scale])
        for name, row in rows.items():
            for severity in range(1, 6):
                strength = change(corrupt(image, name, severity, seed=severity, scale=scale), image).mean()
                assert strength == pytest.approx(float(row[str(severity)]), abs=2e-3), (name, severity)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
    def test_shuffle_is_one_pixel_after_the_other(self, height, width, reach, passes, seed):
        image = noise_image(height, width, seed)
        expected, rng = image.copy(), np.random.default_rng(seed)
        for _ in range(passes):
            for row in range(height - reach, reach, -1):
                for column in range(width - reach, reach, -1):
                    right, down = rng.integers(-reach, reach, size=2)
                    expected[row, column] = expected[row + down, column + right]
        assert np.array_equal(shuffle(image, np.random.default_rng(seed), reach, passes), expected)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(2, 40), st.sampled_from([1, 1.01, 1.1, 1.25, 1.3, 1.75, 2, 2.25, 2.5, 3, 4.5]))
    def test_zoom_is_scipys(self, side, factor):
        image = noise_image(side, side) / 255.0
        centre = int(np.ceil(side / factor))
        start = (side - centre) // 2
        part = image[start : start + centre, start : start + centre]
        enlarged = zoom(part, (factor, factor, 1), order=1, mode="nearest")
        trim = (len(enlarged) - side) // 2
        expected = enlarged[trim : trim + side, trim : trim + side]
        np.testing.assert_allclose(zoom_into_centre(image, factor), expected, atol=1e-12)

    @pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
    def test_elastic_transform_by_scipy(self, severity):
        image = photo(60, 80)
        strength, smoothness, jitter = PARAMETERS["imagenet"]["elastic_transform"][severity - 1]
        rng = np.random.default_rng(7)
        anchors = np.float32([[60, 50], [60, 10], [20, 10]])  # 20 pixels around the middle, (x, y)
        moved = anchors + np.float32(rng.uniform(-jitter, jitter, (3, 2)))
        x = np.float32(image) / 255
        x = cv2.warpAffine(x, cv2.getAffineTransform(anchors, moved), (80, 60), borderMode=cv2.BORDER_REFLECT_101)
        right, down = (
            gaussian_filter(rng.uniform(-1, 1, (60, 80)), smoothness, mode="reflect", truncate=3) * strength
            for _ in range(2)
        )
        rows, columns = np.mgrid[:60, :80]
        places = rows + np.float32(down), columns + np.float32(right)
        channels = [map_coordinates(x[..., c], places, order=1, mode="reflect") for c in range(3)]
        expected = np.uint8(np.stack(channels, -1).clip(0, 1) * 255)
        assert change(corrupt(image, "elastic_transform", severity, seed=7), expected).max() <= 1

    @pytest.mark.parametrize("scale", SCALES)
    def test_frost_is_a_part_of_a_texture(self, scale):
        side, seen = SIDES[scale], set()
        black = np.zeros((side, side, 3), np.uint8)
        weight, resize = PARAMETERS[scale]["frost"][4][1:]
        whole = [np.uint8(weight * textures.texture(name, resize)) for name in textures.TEXTURES]
        for seed in range(12):
            frosty = corrupt(black, "frost", 5, seed=seed, scale=scale)
            places = [
                cv2.minMaxLoc(cv2.matchTemplate(texture, frosty, cv2.TM_SQDIFF)[:-1, :-1])[2] for texture in whole
            ]
            found = [
                number
                for number, (column, row) in enumerate(places)
                if np.array_equal(whole[number][row : row + side, column : column + side], frosty)
            ]
            assert found  # two of the pictures are the same
            seen.update(found[:1])
        assert len(seen) > 2


def levels(x):
    return np.uint8(np.clip(x, 0, 1) * 255)


class TestAgainstPlainCode:
    """To the bit what the libraries make in more passes, on images whose levels include black, white and grays."""

    IMAGES = st.builds(
        lambda height, width, seed, few: np.random.default_rng(seed).choice(few, (height, width, 3)),
        st.integers(1, 30),
        st.integers(1, 30),
        st.integers(0, 99),
        st.sampled_from([np.arange(256, dtype=np.uint8), np.array([0, 1, 254, 255], np.uint8), np.zeros(1, np.uint8)]),
    )

    @settings(max_examples=40, deadline=None)
    @given(IMAGES, st.integers(1, 5), st.sampled_from(SCALES))
    def test_brightness_and_saturate_are_scikit_images(self, image, severity, scale):
        added = PARAMETERS[scale]["brightness"][severity - 1][0]
        factor, more = PARAMETERS[scale]["saturate"][severity - 1]
        hsv = rgb2hsv(image / 255.0)
        bright, vivid = hsv.copy(), hsv.copy()
        bright[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
        vivid[..., 1] = np.clip(hsv[..., 1] * factor + more, 0, 1)
        assert np.array_equal(corrupt(image, "brightness", severity, scale=scale), levels(hsv2rgb(bright)))
        assert np.array_equal(corrupt(image, "saturate", severity, scale=scale), levels(hsv2rgb(vivid)))

    @settings(max_examples=30, deadline=None)
    @given(IMAGES, st.integers(1, 5), st.integers(0, 99))
    def test_impulse_noise_and_contrast(self, image, severity, seed):
        amount, factor = (PARAMETERS["imagenet"][name][severity - 1][0] for name in ("impulse_noise", "contrast"))
        x = image / 255.0
        noisy = random_noise(x, mode="s&p", rng=np.random.default_rng(seed), amount=amount)
        assert np.array_equal(corrupt(image, "impulse_noise", severity, seed=seed), levels(noisy))
        mean = x.mean((0, 1), keepdims=True)
        assert np.array_equal(corrupt(image, "contrast", severity), levels((x - mean) * factor + mean))

    @settings(max_examples=20, deadline=None)
    @given(IMAGES, st.integers(1, 5))
    def test_gaussian_blur_and_zoom_blur(self, image, severity):
        sigma = PARAMETERS["imagenet"]["gaussian_blur"][severity - 1][0]
        blurred = gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest")
        assert np.array_equal(corrupt(image, "gaussian_blur", severity), levels(blurred))
        x = np.float32(image / 255.0)
        factors = np.arange(1, *PARAMETERS["imagenet"]["zoom_blur"][severity - 1])
        total = np.zeros_like(x)
        for factor in factors:
            total += zoom_into_centre(x, factor)
        assert np.array_equal(corrupt(image, "zoom_blur", severity), levels((x + total) / (len(factors) + 1)))

    @pytest.mark.parametrize("sigma", [0.05, 0.4, 0.7, 1, 1.5, 1.7])
    @pytest.mark.parametrize("flat", [False, True])
    def test_single_precision_leaves_no_doubt(self, sigma, flat):
        image = photo(60, 80)
        if flat:  # whole levels, next to which every bit counts
            image[10:] = 255
        blurred = gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest")
        assert np.array_equal(gaussian_blur(Picture(image), np.random.default_rng(0), sigma), levels(blurred))


class TestPicture:
    @pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (5, 3, 1, 4, 2)])
    def test_several_corruptions_of_one_are_those_of_the_image(self, order):
        image = photo(40, 33)
        image.setflags(write=False)
        picture = Picture(image)
        for severity in order:
            for name in ALL:
                alone = corrupt(image, name, severity, seed=severity)
                assert np.array_equal(corrupt(picture, name, severity, seed=severity), alone), (name, severity)

    def test_what_they_share_is_computed_once(self):
        picture, calls = Picture(photo(8)), []

        def total(picture, factor):
            calls.append(factor)
            return factor * picture.pixels.sum()

        assert picture.shared(total, 2) == picture.shared(total, 2) == 2 * picture.shared(total, 1)
        assert calls == [2, 1]

    def test_no_picture(self):
        with pytest.raises(InputError, match=r"float64 \(8, 8, 3\)"):
            corrupt(Picture(photo(8) / 255), "contrast", 1)


class TestAnyImage:
    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(ALL),
        st.integers(1, 5),
        st.sampled_from(SCALES),
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from([None, 0, 255]),
    )
    def test_size_and_type_are_kept(self, name, severity, scale, height, width, flat):
        image = noise_image(height, width) if flat is None else np.full((height, width, 3), flat, np.uint8)
        image.setflags(write=False)
        corrupted = corrupt(image, name, severity, seed=1, scale=scale)
        assert corrupted.shape == image.shape and corrupted.dtype == np.uint8
        assert corrupted.flags.writeable and not np.shares_memory(corrupted, image)

    @pytest.mark.parametrize("name", ALL)
    def test_larger_than_a_texture_and_not_square(self, name):
        image = photo(400, 700)
        corrupted = corrupt(image, name, 2, seed=1)
        assert corrupted.shape == image.shape
        assert 0.3 < change(corrupted, image).mean() < 120
        tall = corrupt(np.ascontiguousarray(image.transpose(1, 0, 2)), name, 2, seed=1)
        ratio = change(tall, image.transpose(1, 0, 2)).mean() / change(corrupted, image).mean()
        assert 0.4 < ratio < 2.5

    @pytest.mark.parametrize("name", ALL)
    def test_seed_alone_decides(self, name):
        image = photo(48, 40)
        first = corrupt(image, name, 3, seed=5)
        np.random.seed(123)
        assert np.array_equal(corrupt(image, name, 3, seed=5), first)
        np.random.seed(123)
        drawn = np.random.random()
        np.random.seed(123)
        corrupt(image, name, 3)
        assert np.random.random() == drawn  # numpy's own generator is not touched
        different = [not np.array_equal(corrupt(image, name, 3, seed=seed), first) for seed in range(5)]
        assert any(different) == (name not in FIXED)
        assert name in FIXED or not np.array_equal(corrupt(image, name, 3), corrupt(image, name, 3))

    @pytest.mark.parametrize("scale", SCALES)
    def test_every_scale_has_every_corruption(self, scale):
        assert tuple(sorted(PARAMETERS[scale])) == tuple(sorted(ALL))
        assert all(len(severities) == 5 for severities in PARAMETERS[scale].values())

    def test_names_and_order(self):
        assert len(CORRUPTIONS) == 15 and len(EXTRA_CORRUPTIONS) == 4
        groups = "gaussian_noise", "defocus_blur", "snow", "contrast"
        assert [CORRUPTIONS.index(name) for name in groups] == [0, 3, 7, 11]

    def test_scale_of_a_size(self):
        assert [scale_for(side) for side in (28, 32)] == ["cifar"] * 2
        assert [scale_for(side) for side in (33, 64)] == ["tiny"] * 2
        assert [scale_for(side) for side in (65, 224)] == ["imagenet"] * 2


class TestRefusals:
    IMAGE = noise_image(8, 8)

    def test_unknown_corruption(self):
        with pytest.raises(InputError, match="unknown corruption 'contrst'; did you mean 'contrast'"):
            corrupt(self.IMAGE, "contrst", 1)
        with pytest.raises(InputError, match="unknown corruption 'q'; choose from: .*gaussian_noise.*saturate"):
            corrupt(self.IMAGE, "q", 1)

    @pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True, "3"])
    def test_severity(self, severity):
        with pytest.raises(InputError, match=f"severity={severity} must be 1 to 5"):
            corrupt(self.IMAGE, "contrast", severity)
        with pytest.raises(InputError, match="must be 1 to 5"):
            Corruption("contrast", severity)

    def test_scale_seed_and_quality(self):
        with pytest.raises(InputError, match="unknown scale 'imagenet64'; .*cifar, imagenet, tiny"):
            corrupt(self.IMAGE, "contrast", 1, scale="imagenet64")
        with pytest.raises(InputError, match="seed=-1 must be at least 0"):
            corrupt(self.IMAGE, "contrast", 1, seed=-1)
        with pytest.raises(InputError, match="jpeg_quality=0 must be 1 to 100"):
            Corruption("contrast", 1, jpeg_quality=0)

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            (IMAGE / 255, r"float64 \(8, 8, 3\)"),
            (IMAGE[..., 0], r"uint8 \(8, 8\)"),
            (IMAGE.transpose(2, 0, 1), r"uint8 \(3, 8, 8\)"),
            (torch.zeros(8, 8, 3, dtype=torch.uint8), "Tensor"),
            (IMAGE[:0], r"no pixels: uint8 \(0, 8, 3\)"),
        ],
    )
    def test_image(self, image, said):
        with pytest.raises(InputError, match=said):
            corrupt(image, "contrast", 1)

    def test_textures_are_missing(self, monkeypatch, tmp_path):
        monkeypatch.setattr(textures, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install 'attention_zoo\[robustness\]'"):
            corrupt(self.IMAGE, "frost", 1)


class TestTensors:
    def test_same_as_arrays(self):
        image = photo(40, 30)
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        corruption = pickle.loads(pickle.dumps(Corruption("glass_blur", 4, "tiny")))
        corrupted = corruption(tensor, seed=3)
        assert corrupted.dtype == torch.uint8 and corrupted.is_contiguous()
        expected = corrupt(image, "glass_blur", 4, seed=3, scale="tiny")
        assert np.array_equal(corrupted.permute(1, 2, 0).numpy(), expected)

    def test_jpeg_is_a_last_step(self):
        tensor = torch.from_numpy(photo(64)).permute(2, 0, 1)
        plain = Corruption("gaussian_noise", 5)(tensor, seed=0).double()
        fine, coarse = (Corruption("gaussian_noise", 5, jpeg_quality=q)(tensor, seed=0).double() for q in (100, 10))
        assert 0 < (fine - plain).abs().mean() < (coarse - plain).abs().mean()
