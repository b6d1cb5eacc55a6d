"""What the page of clicks answers, without a browser: masks, scores, exports that predict repeats, and bad input."""

import io
import json
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

pytest.importorskip("starlette", reason="the extra `pages` is not installed")

from starlette.testclient import TestClient

from attention_zoo.errors import InputError
from attention_zoo.pages.click import MOST_CLICKS
from attention_zoo.pages.pictures import MOST_UPLOADS, Pictures
from attention_zoo.pages.server import application
from attention_zoo.run_lengths import RunLengths
from tests.commands import call as command
from tests.pages.conftest import MARKUP, save_checkpoint

CLICK = {"y": 20, "x": 15, "positive": True}
AWAY = {"y": 5, "x": 40, "positive": False}
BOTH = {"key_adaptation": 1, "key_prior_precision": 0.0, "adapt_in": "backbone", "value_propagation": 5}
CLICKED = {"setting": BOTH, "threshold": 0.45}


@pytest.fixture
def client(page):
    return TestClient(application(page), "http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture
def ids(client):
    return {picture["name"]: picture["id"] for picture in client.get("/api/facts").json()["pictures"]}


def entry(id, *clicks, **more):
    return {"image": id, "clicks": list(clicks), **more}


def asked(client, content):
    answer = client.post("/api/answer", json=content)
    assert answer.status_code == 200, answer.text
    return answer.json()


def mask_of(answer):
    return RunLengths.parse(answer["mask"]).mask()


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_what_the_model_can_do_is_said(client, ids):
    facts = client.get("/api/facts").json()
    assert facts["adapts"] == ["backbone", "head"] and facts["propagates"] and facts["box"] and facts["truth"]
    assert not facts["encoder_once"] and facts["threshold"] == 0.5
    assert [each["name"] for each in facts["settings"]] == ["none", "both"]
    assert facts["built"]["value_propagation"] == 1
    assert ids.keys() == {"a.png", MARKUP, "sub/b.jpg"}  # not the link that leads out of the folder


def test_a_picture_is_made_anew(client, ids, folders):
    answer = client.get(f"/api/pictures/{ids['a.png']}")
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(folders / "images/a.png")))


@pytest.mark.parametrize("id", ["99", "-1", "..%2f..%2fsecret.png", "a.png", "%00"])
def test_no_id_leads_to_another_file(client, id):
    answer = client.get(f"/api/pictures/{id}")
    assert answer.status_code in (400, 404) and "image" not in answer.headers["content-type"]


def test_answers_with_score_and_comparison(client, ids):
    content = entry(ids["a.png"], CLICK, AWAY, **CLICKED)
    answer = asked(client, {**content, "compare": True})
    mask = mask_of(answer["after"])
    assert mask.shape == (48, 64) and answer["after"]["pixels"] == int(mask.sum())
    assert mask[20, 15] and not mask[5, 40]
    assert answer["after"]["seconds"] > 0
    assert answer["before"]["mask"] != answer["after"]["mask"]
    plain = asked(client, {**content, "setting": {"key_adaptation": 0, "value_propagation": 0}})
    assert plain["after"]["mask"] == answer["before"]["mask"] and "before" not in plain
    truths = {f"a#{number}": torch.zeros(48, 64, dtype=torch.bool) for number in range(2)}
    truths["a#0"][10:30, 8:30] = truths["a#1"][40:48, 8:30] = True
    ious = {name: float((mask & truth).sum() / (mask | truth).sum()) for name, truth in truths.items()}
    best = max(ious, key=ious.get)
    assert answer["after"]["truth"] == {"name": best, "iou": pytest.approx(ious[best])}
    assert asked(client, entry(ids[MARKUP], CLICK))["after"]["truth"] is None


def test_a_mask_that_exists_is_taken_and_corrected(client, ids):
    given = np.zeros((48, 64), dtype=np.uint8)
    given[2:12, 30:50] = 255
    path = f"/api/pictures/{ids['a.png']}/mask"
    start = client.post(path, content=png(given)).json()
    assert start["box"] == [2, 30, 11, 49]
    untouched = asked(client, entry(ids["a.png"], **start))
    np.testing.assert_array_equal(mask_of(untouched["after"]).numpy(), given > 0)
    corrected = mask_of(asked(client, entry(ids["a.png"], AWAY, **start, **CLICKED))["after"])
    assert not corrected[5, 40]
    assert client.post(path, content=png(given // 255)).json() == start  # of numbers of objects
    for content, said in (
        (png(given[:40]), "64 x 40 pixels, the picture 64 x 48"),
        (png(0 * given), "empty"),
        (png(np.dstack([given, given, 0 * given])), "colours"),
        (b"GIF89a", "cannot read"),
        (b"", "empty"),
    ):
        refused = client.post(path, content=content)
        assert refused.status_code == 400 and said in refused.json()["error"]


def test_what_is_exported_is_what_predict_makes(client, ids, folders, checkpoint, tmp_path, monkeypatch):
    start = np.zeros((60, 48), dtype=np.uint8)
    start[2:12, 30:40] = 255
    begun = client.post(f"/api/pictures/{ids['sub/b.jpg']}/mask", content=png(start)).json()
    objects = [
        entry(ids["a.png"], CLICK, AWAY, **CLICKED),
        entry(ids["a.png"], AWAY, CLICK, box=[8, 6, 31, 33], threshold=0.6),
        entry(ids["sub/b.jpg"], {**AWAY, "x": 35}, **begun, **CLICKED),
        entry(ids[MARKUP], CLICK, {**CLICK, "y": 3}, setting={"value_propagation": 2}),
    ]
    masks = [mask_of(asked(client, each)["after"]).numpy() for each in objects]

    def export(name):
        answer = client.post(f"/api/export/{name}", json={"objects": objects})
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        return answer.content

    with zipfile.ZipFile(io.BytesIO(export("masks.zip"))) as archive:
        names = archive.namelist()
        files = {name: np.asarray(Image.open(archive.open(name))) for name in names}
    assert names == ["a.png", "a#2.png", "sub/b.png", MARKUP]
    for name, mask in zip(names, masks, strict=True):
        np.testing.assert_array_equal(files[name], 255 * mask)

    content = json.loads(export("coco.json"))
    assert [each["file_name"] for each in content["images"]] == ["a.png", "sub/b.jpg", MARKUP]
    assert [each["image_id"] for each in content["annotations"]] == [1, 1, 2, 3]
    for annotation, mask in zip(content["annotations"], masks, strict=True):
        np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.json").write_bytes(export("clicks.json"))
    clicks = ["--data.predict_clicks", "clicks.json", "--data.predict_dir", folders / "images"]
    assert command("predict", "--ckpt_path", checkpoint, *clicks, "--prediction.path", "out") == 0
    for name in names:
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/masks" / name)), files[name])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "nowhere"}, "no longer here"),
        ({"image": "../secret.png"}, "no longer here"),
        ({"clicks": [{**CLICK, "y": 48}]}, "outside the image of 64 x 48"),
        ({"clicks": [{**CLICK, "y": 1e400}]}, "request"),
        ({"clicks": [CLICK] * (MOST_CLICKS + 1)}, f"more than {MOST_CLICKS} clicks"),
        ({"clicks": []}, "nothing to segment"),
        ({"setting": {"key_adaptation": 10**6}}, "at most 100 on this page"),
        ({"setting": {"value_propagation": -1}}, "value_propagation"),
        ({"setting": {"nonsense": 1}}, "unknown option of setting 'nonsense'"),
        ({"threshold": 2}, "threshold"),
        ({"mask": {"size": [1, 1], "counts": [1]}}, "a mask of 1 x 1 pixels for an image of 64 x 48"),
        ({"box": [0, 0, 1, 1000]}, "outside the image"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_bad_request_is_answered_by_a_word(client, ids, change, said):
    content = {**entry(ids["a.png"], CLICK), **change}
    answer = client.post("/api/answer", content=json.dumps(content).replace("Infinity", "1e400"))
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    assert said in answer.json()["error"] or said == "request"
    assert asked(client, entry(ids["a.png"], CLICK))["after"]["pixels"] >= 0


def test_a_bad_export_is_answered_by_a_word(client, ids):
    for path, content, said in (
        ("masks.zip", {"objects": []}, "expected objects"),
        ("masks.zip", {}, "expected objects"),
        ("else.zip", {"objects": [entry(ids["a.png"], CLICK)]}, "choose from: clicks.json, coco.json, masks.zip"),
        ("coco.json", {"objects": [entry("nowhere", CLICK)]}, "no longer here"),
    ):
        answer = client.post(f"/api/export/{path}", json=content)
        assert answer.status_code == 400 and said in answer.json()["error"]


def big_png(width, height):
    """A PNG that declares so many pixels, in a few bytes."""
    content = bytearray(png(np.zeros((1, 1), dtype=np.uint8)))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_pictures_from_a_tab(client, ids, folders, monkeypatch):
    monkeypatch.setattr("attention_zoo.pages.click.MOST_UPLOAD", 100_000)
    photograph = (folders / "images/a.png").read_bytes()
    taken = client.post("/api/pictures?name=..%2F..%2Fetc%2F<b>%00dog.png", content=photograph).json()
    assert taken["name"] == "<b>dog.png" and len(taken["id"]) > 20
    answer = asked(client, entry(taken["id"], CLICK, AWAY, **CLICKED))
    same = asked(client, entry(ids["a.png"], CLICK, AWAY, **CLICKED))
    assert answer["after"]["mask"] == same["after"]["mask"] and answer["after"]["truth"] is None
    for name, content, said in (
        ("note.txt", b"no picture", "cannot read image note.txt: not an image of a known format"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "cannot read image x.svg"),
        ("bomb.png", big_png(13000, 13000), "13000 x 13000 pixels"),
        ("long.png", big_png(13000, 4000), "at most 33,554,432 are taken"),
        ("strip.png", big_png(50_000, 100), "strip.png of 50000 x 100 pixels is too long for its width"),
        ("cut.png", photograph[:200], "cannot read image cut.png"),
        ("none.png", b"", "empty"),
        ("huge.png", b"x" * 100_001, "100,000 bytes"),
    ):
        refused = client.post(f"/api/pictures?name={name}", content=content)
        assert refused.status_code == 400 and said in refused.json()["error"], refused.text
    for _ in range(MOST_UPLOADS):
        last = client.post("/api/pictures?name=a.png", content=photograph).json()
    assert client.get(f"/api/pictures/{taken['id']}").status_code == 400
    assert client.get(f"/api/pictures/{last['id']}").status_code == 200


def test_a_picture_that_cannot_be_read_is_named_as_its_tab_does(tmp_path):
    def decode(name, content):
        raise InputError(f"cannot read image {name}: it is none")

    pictures = Pictures(tmp_path, [str(tmp_path / "sub/a.png")], decode)
    with pytest.raises(InputError, match="^cannot read image sub/a.png: it is none$"):
        pictures.pixels(pictures.find("0"))


def test_the_command_refuses_what_does_not_fit(checkpoint, folders, capfd, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png").symlink_to(folders / "secret.png")
    config = {"model": {"class_path": "Classification", "init_args": {"model": "resnet18"}}, "data": "Digits"}
    save_checkpoint(tmp_path / "other.ckpt", config, {})
    sub = ["--images", folders / "images/sub", "--masks", folders / "masks"]
    cases = [
        (["--ckpt_path", tmp_path / "other.ckpt"], "is of Classification on Digits, not of interactive segmentation"),
        (["--ckpt_path", tmp_path / "none.ckpt"], "does not exist"),
        (["--images", tmp_path / "nowhere"], "no folder"),
        (["--images", tmp_path / "empty"], "no images in"),
        (["--images", tmp_path / "links"], "links to elsewhere"),
        (["--masks", folders / "masks"], "--masks needs --images"),
        (sub, "has the name of a picture, such as b.png"),
        (["--port", "70000"], "port"),
    ]
    for argv, said in cases:
        capfd.readouterr()
        assert command("click", "--ckpt_path", checkpoint, *argv) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert said in line, line
