"""Corrupted data sets from the command line."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from PIL import Image

from attention_zoo.cli.main import main
from datamodules.corruptions import CORRUPTIONS, corrupt, generate
from datamodules.corruptions.generate import read_source
from datamodules.corruptions.writing import done_by
from datamodules.images import decode
from tests.processes import run, started

HERE = ["--workers", "0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five smooth images, 40 x 30, in three classes."""
    root = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:30, :40]
    for number, name in enumerate(("a/one.png", "a/two.jpg", "b/sub/three.png", "c/four.png", "c/five.png")):
        wave = 128 + 60 * np.sin(rows / (4 + number)) + 60 * np.cos(columns / 5)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([wave, wave[::-1], wave[:, ::-1]], -1).astype(np.uint8)).save(path)
    return root


def files(folder):
    """Everything below a folder but the record: content by path."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != "generated.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_layout_and_content(zoo, photos):
    names = ["contrast", "gaussian_noise"]
    ended = zoo("corrupt", photos, "out", "--corruptions", *names, "--severities", "2", "5", "--size", "24", *HERE)
    assert ended.code == 0, ended.err
    assert ended.out == "out: 20 files written, 0 were there\n"
    written = files("out")
    images = ["a/one.JPEG", "a/two.JPEG", "b/sub/three.JPEG", "c/five.JPEG", "c/four.JPEG"]
    assert set(written) == {f"{name}/{severity}/{image}" for name in names for severity in (2, 5) for image in images}
    with Image.open("out/contrast/2/a/one.JPEG") as image:
        assert image.size == (24, 24) and image.format == "JPEG"
        seen = np.asarray(image).astype(int)
        luma = image.quantization[0]
    shorter = Image.open(photos / "a/one.png").resize((int(40 * 27 / 30), 27), Image.BILINEAR)
    prepared = np.array(shorter.crop((6, 2, 30, 26)))
    assert np.abs(seen - corrupt(prepared, "contrast", 2)).mean() < 2
    Image.fromarray(prepared).save("q85.jpg", quality=85)
    assert luma == Image.open("q85.jpg").quantization[0]


def test_progress_without_a_terminal_is_lines(zoo, photos, monkeypatch):
    monkeypatch.setattr("datamodules.corruptions.writing.LINE_EVERY", 0)
    options = ["--corruptions", "contrast", "--severities", "1", "2", "--keep_size", *HERE]
    ended = zoo("corrupt", photos, "out", *options)
    assert ended.err.splitlines() == [f"files: {count} of 10" for count in (2, 4, 6, 8, 10)]
    assert zoo("corrupt", photos, "array", *options[:2], "--format", "cifar", *HERE).err == "contrast, rows: 25 of 25\n"


def test_seeds_come_from_the_path(zoo, photos):
    noise = ["--corruptions", "gaussian_noise", "--severities", "1", "--keep_size", *HERE]
    assert zoo("corrupt", photos, "all", *noise).code == 0
    assert zoo("corrupt", photos, "some", *noise, "--limit", "2").code == 0
    assert zoo("corrupt", photos, "other", *noise, "--seed", "1").code == 0
    everything, some, other = files("all"), files("some"), files("other")
    assert len(some) == 2 and some.items() <= everything.items()
    assert everything.keys() == other.keys() and not everything.items() & other.items()


def test_every_file_has_noise_of_its_own(zoo, tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "gray" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (128, 128, 128)).save(tmp_path / "gray" / name)
    noises = ["--corruptions", "gaussian_noise", "shot_noise", "--severities", "4", "5"]
    assert zoo("corrupt", "gray", "out", *noises, "--keep_size", *HERE).code == 0
    assert len(set(files("out").values())) == 12


def test_workers_change_nothing_and_groups_are_folders(zoo, photos):
    options = ["--corruptions", "snow", "elastic_transform", "spatter", "--size", "32", "--scale", "tiny", "--groups"]
    assert zoo("corrupt", photos, "two", *options, "--workers", "2").code == 0
    assert zoo("corrupt", photos, "none", *options, *HERE).code == 0
    assert files("two") == files("none")
    assert {path.split("/")[0] for path in files("two")} == {"weather", "digital", "extra"}
    assert len(files("two")) == 3 * 5 * 5


def test_goes_on_where_it_stopped(zoo, photos):
    options = ["--corruptions", "brightness", "fog", "--size", "32", *HERE]
    assert zoo("corrupt", photos, "out", *options).code == 0
    whole = files("out")
    os.remove("out/fog/3/a/one.JPEG")
    kept = Path("out/fog/3/a/two.JPEG").stat().st_mtime_ns
    assert zoo("corrupt", photos, "out", *options).out == "out: 1 files written, 49 were there\n"
    assert files("out") == whole
    assert Path("out/fog/3/a/two.JPEG").stat().st_mtime_ns == kept
    assert zoo("corrupt", photos, "out", "--corruptions", "contrast", *options[3:]).code == 0  # more of the same
    assert len(files("out")) == 75


def test_arrays(zoo, photos):
    names = ["shot_noise", "pixelate"]
    ended = zoo("corrupt", photos, "out", "--format", "cifar", "--corruptions", *names, "--size", "8", *HERE)
    assert ended.code == 0, ended.err
    assert sorted(files("out")) == ["labels.npy", "pixelate.npy", "shot_noise.npy"]
    labels, noise, coarse = (np.load(f"out/{name}.npy") for name in ("labels", "shot_noise", "pixelate"))
    assert labels.dtype == noise.dtype == np.uint8
    assert noise.shape == (25, 8, 8, 3) and labels.tolist() == [0, 0, 1, 2, 2] * 5
    source = read_source(photos)
    assert source.labels == [0, 0, 1, 2, 2]
    for row, file in enumerate(source.files):
        prepared = np.array(Image.open(photos / file).resize((8, 8), Image.BILINEAR))
        assert np.array_equal(coarse[15 + row], corrupt(prepared, "pixelate", 4, scale="cifar"))
    strengths = [np.abs(noise[5 * s : 5 * s + 5].astype(int) - noise[:5]).mean() for s in range(5)]
    assert strengths[4] > strengths[1] > 0
    os.remove("out/pixelate.npy")
    again = zoo("corrupt", photos, "out", "--format", "cifar", "--corruptions", *names, "--size", "8", *HERE)
    assert again.out == "out: 1 files written, 2 were there\n"
    assert np.array_equal(np.load("out/pixelate.npy"), coarse)


def test_arrays_read_each_image_once(photos, monkeypatch):
    read = []
    monkeypatch.setattr(generate, "decode", lambda path: read.append(path) or decode(path))
    monkeypatch.setattr(generate.ArrayParts, "IMAGES", 2)
    parts = generate.ArrayParts(read_source(photos), generate.Recipe("cifar", 8, 0), "fog")
    assert [parts[place].shape for place in range(len(parts))] == [(5, n, 8, 8, 3) for n in (2, 2, 1)]
    assert len(read) == len(set(read)) == 5


def test_defaults_are_the_benchmark(zoo, photos):
    assert zoo("corrupt", photos, "out", "--per_class", "1", "--scale", "cifar", *HERE).code == 0
    written = files("out")
    assert len(written) == 15 * 5 * 3
    assert {path.split("/")[0] for path in written} == set(CORRUPTIONS)
    assert Image.open("out/frost/5/b/sub/three.JPEG").size == (32, 32)


LONG = ["--corruptions", "glass_blur", "zoom_blur", "brightness", "--severities", "2", "4", "--size", "224"]


@pytest.fixture(scope="module")
def straight(call, photos, tmp_path_factory):
    """What a start that nothing stops writes."""
    folder = tmp_path_factory.mktemp("straight") / "out"
    assert call("corrupt", photos, folder, *LONG, *HERE) == 0
    return files(folder)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_interrupted(zoo, tmp_path, photos, straight, stop):
    """No half-written file, no process left; the next start ends as if there had been none."""
    with started(main, ["corrupt", str(photos), "out", *LONG, "--workers", "2"], cwd=tmp_path) as running:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out/*/*/*/*.JPEG")) and time.monotonic() < deadline:
            time.sleep(0.02)
        if stop is signal.SIGINT:
            running.signal(stop)
            ended = running.wait(60)
            assert ended.code == 130
            assert "Traceback" not in ended.err
        else:
            running.kill()
            running.wait(60)
    written = files(tmp_path / "out")
    assert 0 < len(written) < len(straight)
    complete = {path: content for path, content in written.items() if not path.endswith(".part")}
    assert stop is signal.SIGKILL or complete == written
    assert complete.items() <= straight.items()
    assert zoo("corrupt", photos, "out", *LONG, *HERE).code == 0
    assert files("out") == straight


def killed_at_the_start():
    """Die while the workers are starting, which takes them long."""
    threadpoolctl.threadpool_limits = lambda threads: time.sleep(2)  # as on a machine that is busy
    items = done_by([1, 2], workers=2)  # noqa: F841 (they end with it)
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_are_still_starting_end_with_their_parent(tmp_path):
    assert run(killed_at_the_start, cwd=tmp_path).code == -signal.SIGKILL


def test_hidden_parts_do_not_stay(zoo, photos, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    ended = zoo("corrupt", photos, "out", *HERE)
    assert ended.code == 2
    assert "cannot write out/generated.json: No space left on device" in ended.err
    assert not any(Path("out").rglob("*.part"))


BAD = {
    "no such folder": (["nope", "out"], ["no class folders in nope", "no such folder"]),
    "no class folders": (["PHOTOS/a", "out"], ["no class folders", "one.png"]),
    "no images": (["empty", "out"], ["no images in empty/class"]),
    "the same folder": (["PHOTOS", "PHOTOS"], ["is in the folder", "choose another"]),
    "inside the source": (["PHOTOS", "PHOTOS/c/out"], ["is in the folder", "choose another"]),
    "folder of other things": (["PHOTOS", "empty"], ["empty holds other things"]),
    "a file": (["PHOTOS", "file"], ["file is a file"]),
    "other seed": (["PHOTOS", "done", "--seed", "3"], ["done was written with seed 0, not 3"]),
    "other scale": (["PHOTOS", "done", "--scale", "tiny"], ["scale 'cifar', not 'tiny'", "size 32, not 64"]),
    "other images": (["PHOTOS", "done", "--limit", "3"], ["images 5, not 3", "limit None, not 3"]),
    "other record": (["PHOTOS", "strange"], ["strange/generated.json is no record"]),
    "unknown corruption": (["PHOTOS", "out", "--corruptions", "fgo"], ["unknown corruption 'fgo'", "'fog'"]),
    "severity": (["PHOTOS", "out", "--severities", "0", "3"], ["severity=0 must be 1 to 5"]),
    "unknown scale": (["PHOTOS", "out", "--scale", "inception"], ["inception"]),
    "broken image": (["broken", "out"], ["cannot read image broken/a/one.png"]),
    "same name": (["twice", "out"], ["a/one.jpg and a/one.png would both become a/one.JPEG"]),
    "nothing to read": (["", "out"], ["src is empty"]),
    "nothing to write": (["PHOTOS", ""], ["dst is empty"]),
    "a negative seed": (["PHOTOS", "out", "--seed", "-1"], ["seed=-1 must be at least 0"]),
    "size": (["PHOTOS", "out", "--size", "0"], ["size must be at least 1, got 0"]),
    "limit": (["PHOTOS", "out", "--limit", "0"], ["limit must be at least 1, got 0"]),
    "size and none": (["PHOTOS", "out", "--size", "9", "--keep_size"], ["--size or --keep_size"]),
    "some severities of arrays": (["PHOTOS", "out", "--format", "cifar", "--severities", "1"], ["all five severities"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(zoo, tmp_path, photos, case):
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "generated.json").write_text("[]")
    for folder, file in (("broken", "one.png"), ("twice", "one.png"), ("twice", "one.jpg")):
        (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a" / file).write_text("no image")
    if "done" in BAD[case][0]:
        command = ["--corruptions", "contrast", "--severities", "1", "--scale", "cifar", *HERE]
        assert zoo("corrupt", photos, "done", *command).code == 0
    arguments, words = BAD[case]
    scale = [] if "--scale" in arguments else ["--scale", "cifar"]
    ended = zoo("corrupt", *(argument.replace("PHOTOS", str(photos)) for argument in arguments), *scale, *HERE)
    assert ended.code == 2
    assert ended.err.startswith("error: ") and len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert not list((tmp_path / "out").rglob("*.JPEG"))
