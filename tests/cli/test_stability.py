"""A classifier on ImageNet-P, from the shell."""

import pytest

from attention_zoo.results.stability import StabilityScores
from tests.datamodules.files import write_videos

NAMES = ["gaussian_noise", "tilt"]


def test_on_the_command_line(tiny, zoo, tmp_path):
    root, out = write_videos(tmp_path / "videos", NAMES), tmp_path / "out"
    model = ["--config", tiny, "--model", "PerturbationStability", "--data", "ImageNetP", "--data.root", root]
    model += ["--data.perturbations", '["gaussian_noise", "tilt"]', "--data.image_size", "8", "--data.num_workers", "0"]
    ended = zoo("test", *model, "--data.batch_size", "3", "--trainer.default_root_dir", out)
    assert ended.code == 0, ended.err
    assert "flip probability ↓" in ended.out and "tilt" in ended.out
    found = StabilityScores.read(out / "stability.json")
    assert {name.partition("/")[0] for name in found.scores} == {"gaussian_noise", "tilt", "mean"}
    for score in ("flip_probability", "t5d"):
        both = [found.scores[f"{name}/{score}"] for name in NAMES]
        assert found.scores[f"mean/{score}"] == pytest.approx(sum(both) / 2)
    assert found.facts["sequences"] == 4 and "part_of" not in found.protocol
    short = ["--trainer.limit_test_batches", "1", "--trainer.default_root_dir", tmp_path / "short"]
    ended = zoo("test", *model, "--data.batch_size", "3", *short)
    assert ended.code == 2
    assert "1 of tilt were tested: give a larger trainer.limit_test_batches" in ended.err.splitlines()[-1]
    more = [
        *short,
        "--data.perturbations",
        '["tilt"]',
        "--data.root",
        write_videos(tmp_path / "more", ["tilt"], more=1),
    ]
    ended = zoo("test", *model, "--data.batch_size", "2", *more)
    assert ended.code == 0, ended.err
    part = StabilityScores.read(tmp_path / "short" / "stability.json")
    assert (part.protocol["sequences"], part.protocol["part_of"]) == (2, 3)
    ended = zoo("test", *model[:4], "--data.batch_size", "3", "--data", "Digits")
    assert ended.code == 2 and "needs sequences of images, such as ImageNetP; Digits has none" in ended.err
