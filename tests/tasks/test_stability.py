"""ImageNet-P: sequences from videos, flip probability and top-5 distance."""

import numpy as np
import pytest
import torch

from attention_zoo.errors import InputError
from datamodules import ImageNetP
from datamodules.imagenet_p import PERTURBATIONS, is_noise
from tasks.metrics.stability import Stability
from tests.datamodules.files import SYNSETS, truncate, write_videos

NAMES = ["gaussian_noise", "tilt"]


def plainly(logits, step):
    """Flip probability and T5D from their definition, frame by frame."""
    ranks = [np.argsort(np.argsort(-frame, kind="stable"), kind="stable") + 1 for frame in logits]
    flips, moved = [], []
    for later in range(1 if step is None else step, len(ranks)):
        one, other = ranks[0 if step is None else later - step], ranks[later]
        flips.append(one.argmin() != other.argmin())
        moved.append(sum(abs(min(other[one == place][0], 6) - place) for place in range(1, 6)))
    return np.mean(flips), np.mean(moved)


@pytest.mark.parametrize("step", [None, 1, 3])
def test_against_the_definition(step):
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randn(9, 12, generator=generator).cumsum(0) for _ in range(4)]
    metric = Stability(perturbations=2)
    for logits in sequences:
        metric.update(logits, 1, step)
    metric.update(sequences[0][:1].expand(9, 12), 0, step)
    expected = np.array([plainly(logits.numpy(), step) for logits in sequences])
    means, widths = metric.compute()
    np.testing.assert_allclose(means[1], expected.mean(0))
    np.testing.assert_allclose(widths[1], 1.96 * expected.std(0, ddof=1) / 2)
    assert means[0].tolist() == [0, 0]  # nothing moves


def test_places_after_the_fifth_are_one():
    logits = torch.arange(8.0).flip(0).repeat(2, 1)
    logits[1, 4], logits[1, 7] = 0, 3  # the fifth becomes the last, which changes nothing further down
    metric = Stability(1)
    metric.update(logits, 0, 1)
    assert metric.compute()[0].tolist() == [[0, 1]]


@pytest.mark.parametrize(("frames", "step"), [(1, None), (2, 2), (3, 3), (2, 3), (0, 1)])
def test_sequences_too_short_to_compare_are_refused(frames, step):
    metric = Stability(1)
    with pytest.raises(InputError, match=f"a sequence of {frames} frames.*{(step or 1) + 1} or more"):
        metric.update(torch.randn(frames, 10), 0, step)
    assert metric.sequences.tolist() == [0]


def test_as_many_frames_as_the_difficulty_compares(tmp_path):
    write_videos(tmp_path, ["gaussian_noise_3", "tilt"], frames=3)
    for name, difficulty, readable in (("gaussian_noise", 3, True), ("tilt", 2, True), ("tilt", 3, False)):
        data = ImageNetP(str(tmp_path), [name], difficulty=difficulty, image_size=24)
        data.setup("test")
        if readable:
            assert len(data.splits["test"].images[0]) == 3
        else:
            with pytest.raises(InputError, match=r"a.mp4 has 3 frames; expected a video of 4 to 1000"):
                data.splits["test"].images[0]


def test_sequences_are_read(tmp_path):
    data = ImageNetP(str(write_videos(tmp_path, NAMES)), NAMES, image_size=24, num_workers=0, batch_size=3)
    data.setup("test")
    first, second = data.test_dataloader()
    assert first["image"].shape == (18, 3, 24, 24) and second["image"].shape == (6, 3, 24, 24)
    assert first["frames"].tolist() == [6, 6, 6]
    assert first["perturbation"].tolist() + second["perturbation"].tolist() == [0, 0, 1, 1]
    assert first["index"].tolist() + second["index"].tolist() == [0, 1, 2, 3]
    mean, std = (torch.tensor(values) for values in (data.mean, data.std))
    pixels = 255 * (second["image"].mean((2, 3)) * std + mean)
    expected = torch.tensor([[40.0, 20 + 30 * frame, 20 + 30 * frame] for frame in range(6)])  # red first
    assert (pixels - expected).abs().max() < 8  # videos lose a little
    assert data.steps == [None, 1] and data.num_classes == 1000
    harder = ImageNetP(str(tmp_path), ["tilt"], difficulty=2)
    harder.setup("test")
    assert harder.steps == [2]
    assert len(PERTURBATIONS) == 10 and [name for name in PERTURBATIONS if is_noise(name)] == list(PERTURBATIONS[:2])


def test_bad_sequences(tmp_path):
    write_videos(tmp_path, NAMES, frames=1)
    with pytest.raises(
        InputError, match=r"no sequences in .*gaussian_noise_3: expected <synset>/\*.mp4; found: no such"
    ):
        ImageNetP(str(tmp_path), NAMES, difficulty=3).setup("test")
    for said, make in (
        ("unknown perturbation 'fog'", lambda: ImageNetP(str(tmp_path), ["fog"])),
        ("difficulty=4 must be at most 3", lambda: ImageNetP(str(tmp_path), difficulty=4)),
        ("perturbations", lambda: ImageNetP(str(tmp_path), ["tilt", "tilt"])),
    ):
        with pytest.raises(InputError, match=said):
            make()
    truncate(tmp_path / "tilt" / SYNSETS[0] / "a.mp4")
    for name, said in (("gaussian_noise", "a.mp4 has 1 frames; expected a video of 2"), ("tilt", "a.mp4 has 0 frames")):
        data = ImageNetP(str(tmp_path), [name], image_size=24, num_workers=0)
        data.setup("test")
        with pytest.raises(InputError, match=said):
            data.splits["test"].images[0]
    small = ImageNetP(str(write_videos(tmp_path / "small", NAMES)), NAMES, image_size=40)
    small.setup("test")
    with pytest.raises(InputError, match="has 32 x 32 pixels; expected at least 40"):
        small.splits["test"].images[0]
