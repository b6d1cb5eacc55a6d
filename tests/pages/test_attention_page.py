"""The attention page's answers, without a browser."""

import io
import json
import struct
from functools import partial

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `pages` is not installed")

import timm
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis import atom_pictures, attention_maps, cluster_pictures, observe
from attention_zoo.analysis.side_by_side import Subject
from attention_zoo.analysis.subjects import subject_of
from attention_zoo.cli.look import _corrupt, _decode, _files
from attention_zoo.errors import InputError
from attention_zoo.functional.diagnostics import row_entropy
from attention_zoo.pages import gallery as galleries
from attention_zoo.pages.attention import AttentionPage
from attention_zoo.pages.gallery import Gallery
from attention_zoo.pages.server import application
from datamodules.corruptions import CORRUPTIONS

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 3}
CLASSES = ["cat", "dog", "<b>bird</b>"]
MIXERS = ("DotProduct", "VarsD", "KMeans", "GatedConv")


def vit(mixer):
    torch.manual_seed(0)
    return az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **VIT), mixer).eval()


def twice():
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 3}
    return timm.create_model("absvit_tiny_patch16_224", **sizes).eval()


def picture(seed):
    return torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def models():
    return [*map(vit, MIXERS), twice()]


@pytest.fixture(scope="module")
def client(models):
    subjects = {
        f"{place} {type(model).__name__}": Subject(
            lambda size, model=model: model, lambda image: image, class_names=CLASSES
        )
        for place, model in enumerate(models)
    }
    gallery = Gallery(subjects, {f"image {seed}": partial(picture, seed) for seed in range(2)}, _corrupt)
    page = AttentionPage(gallery, CORRUPTIONS, _decode, "random")
    with TestClient(application(page), "http://127.0.0.1:8000") as client:
        yield client


def batch(models, model=0, seed=0):
    return Subject(lambda size: models[model], lambda image: image).show(picture(seed))[1]


def values(client, **query):
    answer = client.get("/api/values", params={"image": "image 0", "model": 0, **query})
    assert answer.status_code == 200, answer.text
    size = struct.unpack("<I", answer.content[:4])[0]
    header = json.loads(answer.content[4 : 4 + size])
    return header, torch.from_numpy(
        np.frombuffer(answer.content, "<f4", offset=4 + size).reshape(header["count"], -1).copy()
    )


def refusal(client, path="values", **query):
    answer = client.get(f"/api/{path}", params={"image": "image 0", "model": 0, **query})
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def test_facts(client):
    facts = client.get("/api/facts").json()
    assert [each["classes"] for each in facts["models"]] == [CLASSES] * 5
    assert facts["images"] == ["image 0", "image 1"]
    assert facts["corruptions"][0] == "gaussian_noise" and facts["note"] == "random"


@pytest.mark.parametrize("model", range(len(MIXERS)))
def test_rows_and_columns_are_those_of_the_maps(client, models, model):
    maps = attention_maps(models[model], batch(models), "0-2")
    header, given = values(client, model=model, layer=1, token="1,2", head="each")
    assert (header["prefix"], header["grid"], header["steps"]) == (1, [4, 4], 3 if MIXERS[model] == "VarsD" else 0)
    assert_close(given, maps[1][0, :, 7], rtol=1e-4, atol=1e-6)
    assert_close(
        values(client, model=model, layer=1, token="cls")[1], maps[1][0, :, 0].mean(0)[None], rtol=1e-4, atol=1e-6
    )
    one = values(client, model=model, layer=2, token="3,3", head="1", kind="read_by")[1]
    assert_close(one, maps[2][0, 1, :, 16][None], rtol=1e-4, atol=1e-6)
    entropies = client.get("/api/entropies", params={"image": "image 0", "model": model, "layer": 1}).json()
    assert_close(torch.tensor(entropies["entropies"]), row_entropy(maps[1])[0], rtol=1e-4, atol=1e-6)


def test_every_head_of_every_layer_at_once(client, models):
    header, given = values(client, layer=1, token="2,1", head="every")
    assert header["layers"] == [0, 1, 2]
    expected = torch.stack([weights[0, :, 10] for weights in attention_maps(models[0], batch(models), "0-2").values()])
    assert_close(given, expected.flatten(0, 1))


def test_rollout(client, models):
    product = torch.eye(17)
    for weights in list(attention_maps(models[0], batch(models), "0-1").values()):
        product = (weights[0].mean(0) + torch.eye(17)) / 2 @ product
    assert_close(values(client, layer=1, token="0,1", kind="rollout_reads")[1][0], product[2])
    assert_close(values(client, layer=1, token="0,1", kind="rollout_read_by")[1][0], product[:, 2])


def test_what_only_some_readings_have(client, models):
    (seen,) = observe(models[1], batch(models), "1").layers
    for step, weights in enumerate(seen.mixer.attention_path(seen.tokens)):
        assert_close(values(client, model=1, layer=1, token="0,0", step=step)[1][0], weights[0, :, 1].mean(0))
    header, atoms = values(client, model=1, layer=1, kind="atoms", count=3)
    assert header["prefix"] == 0
    assert_close(atoms, torch.cat(list(atom_pictures(seen, 3).values())).flatten(1))
    (seen,) = observe(models[2], batch(models), "1").layers
    expected = torch.cat(list(cluster_pictures(seen).values())).flatten(1).float()
    assert_close(values(client, model=2, layer=1, kind="clusters", head="each")[1], expected)
    assert_close(values(client, model=2, layer=1, kind="clusters", head="1")[1], expected[1:])


def test_norms_are_of_what_comes_out_of_a_block(client, models):
    model, image = models[0], batch(models)
    with torch.no_grad():
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(image)))
        for layer, block in enumerate(model.blocks):
            tokens = block(tokens)
            assert_close(values(client, layer=layer, kind="norms")[1], tokens.norm(dim=-1))


def test_a_view_says_what_there_is(client, models):
    view = client.get("/api/view", params={"image": "image 1", "model": 1}).json()
    assert view["size"] == [16, 16] and view["prior"] is None
    assert view["layers"][2] == {
        **{"mixer": "VarsD", "heads": 2, "grid": [4, 4], "prefix": 1, "class_token": True},
        **{"steps": 3, "atoms": True, "clusters": False},
    }
    with torch.no_grad():
        chances = models[1](batch(models, 1, 1)).softmax(-1)[0]
    assert view["prediction"] == f"{CLASSES[chances.argmax()]} ({100 * chances.max():.0f} %)"


def test_the_picture_is_what_the_model_sees(client):
    query = {"image": "image 0", "model": 0}
    plain = client.get("/api/picture", params=query)
    assert plain.headers["content-type"] == "image/png"
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(plain.content)))).permute(2, 0, 1)
    assert torch.equal(pixels, picture(0))
    noisy = client.get("/api/picture", params={**query, "corruption": "gaussian_noise", "severity": 5})
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(noisy.content)))).permute(2, 0, 1)
    assert torch.equal(pixels, _corrupt("gaussian_noise", 5)(picture(0)))
    corrupted = values(client, corruption="gaussian_noise", severity=5)[1]
    assert not torch.allclose(corrupted, values(client)[1])


def test_a_prior_steers_what_looks_twice(client, models):
    model, image = models[4], batch(models, 4)
    view = client.get("/api/view", params={"image": "image 0", "model": 4}).json()
    assert view["prior"] == {"word": "learned", "alpha": model.alpha, "mode": "absvit"}
    with torch.no_grad():
        first = model.first_pass(image)
        second = model.second_pass(first, model.class_prior(1), alpha=5.0, mode="qkv", keep=range(3))
    asked = {"model": 4, "prior": "dog", "alpha": 5, "mode": "qkv", "layer": 2}
    assert_close(values(client, kind="norms", **asked)[1], second.states[2][1].norm(dim=-1))
    assert_close(values(client, kind="similarity", **asked)[1], second.similarity[..., 0])
    assert not torch.allclose(values(client, **asked)[1], values(client, model=4, layer=2)[1])
    assert "top-down" in refusal(client, prior="dog") and "looks once" in refusal(client, kind="similarity")
    assert "cat, dog" in refusal(client, model=4, prior="horse")


def test_a_dropped_image_is_asked_for_by_the_name_it_is_given(client):
    file = io.BytesIO()
    Image.fromarray(picture(7).permute(1, 2, 0).numpy()).save(file, "PNG")
    answer = client.post("/api/upload", params={"name": '../<img src=x onerror="a()">.png'}, content=file.getvalue())
    name = answer.json()["image"]
    assert not set(name) & set("<>/\"'&")
    png = client.get("/api/picture", params={"image": name, "model": 0}).content
    assert torch.equal(torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1), picture(7))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"image": "/etc/passwd"}, "unknown image '/etc/passwd'"),
        ({"model": "9"}, "there are models 0 to 4"),
        ({"model": "-1"}, "model=-1 must be a whole number"),
        ({"layer": "3"}, "layers 0 to 2"),
        ({"token": "4,0"}, "4 rows and 4 columns"),
        ({"token": "NaN"}, "write 'mean', 'cls' or 'row,column'"),
        ({"head": "2"}, "a number from 0 to 1"),
        ({"step": "1"}, "no steps"),
        ({"kind": "all"}, "unknown picture 'all'"),
        ({"kind": "atoms"}, "no dictionary"),
        ({"kind": "clusters"}, "no assignments"),
        ({"kind": "atoms", "count": "1000", "model": "1"}, "1 to 64 atoms"),
        ({"corruption": "rain"}, "unknown corruption 'rain'"),
        ({"corruption": "fog", "severity": "6"}, "must be 1 to 5"),
        ({"prior": "cat", "alpha": "nan", "model": "4"}, "alpha=nan must be a number"),
        ({"mode": "sideways", "model": "4"}, "unknown mode"),
    ],
)
def test_what_is_asked_for_in_vain(client, query, words):
    assert words in refusal(client, **query)
    assert values(client)[0]["count"] == 1


def test_images_of_a_folder(tmp_path):
    """Links that lead out of it are left out, and no tab is told where it is."""
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(1).permute(1, 2, 0).numpy()).save(tmp_path / "secret.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="links to elsewhere"):
        _files([str(tmp_path / "in")])
    (tmp_path / "in/broken.png").write_bytes(b"")
    found = _files([str(tmp_path / "in"), str(tmp_path / "secret.png")])
    assert list(found) == ["broken.png", str(tmp_path / "secret.png")]
    assert torch.equal(found[str(tmp_path / "secret.png")](), picture(1))
    with pytest.raises(InputError, match="^cannot read image broken.png: not an image"):
        found["broken.png"]()


def test_a_strip_is_no_image_for_a_model_of_its_aspect():
    """Of one row of a thousand pixels there would be hundreds of thousands of tokens."""
    prepare = subject_of("test_vit", None, False, torch.device("cpu")).prepare
    least = min(prepare(torch.zeros(3, 20, 320, dtype=torch.uint8)).shape[1:])
    assert prepare(torch.zeros(3, 320, 20, dtype=torch.uint8)).shape[1:] == (16 * least, least)
    with pytest.raises(InputError, match="321 x 20 pixels: one side is over 16 times the other"):
        prepare(torch.zeros(3, 20, 321, dtype=torch.uint8))


def test_uploads_that_are_no_images(client):
    answer = client.post("/api/upload", params={"name": "a.png"}, content=b"no image")
    assert answer.status_code == 400 and "cannot read image a.png" in answer.json()["error"]
    file = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(file, "PNG")
    answer = client.post("/api/upload", params={"name": "a.png"}, content=file.getvalue())
    assert answer.status_code == 400 and "pixels" in answer.json()["error"]


def test_large_images_make_room_for_others(monkeypatch):
    monkeypatch.setattr(galleries, "MOST_BYTES", 2 * picture(7).nbytes)
    gallery = galleries.Gallery({}, {}, None)
    names = [gallery.add(f"{place}.png", bytes([place]), picture(place)) for place in range(3)]
    assert list(gallery._uploads) == names[1:]
    monkeypatch.setattr(galleries, "MOST_BYTES", 1)
    assert list(gallery._uploads) == names[1:] and gallery.add("a", b"", picture(1)) in gallery._uploads
    assert len(gallery._uploads) == 1


def test_what_is_kept_has_an_end(client, monkeypatch):
    expected = values(client, model=1, layer=0)[1]
    monkeypatch.setattr(galleries, "MOST_BYTES", 1)
    monkeypatch.setattr(galleries, "MOST_VIEWS", 2)
    for model in range(5):
        for layer in range(3):
            values(client, model=model, layer=layer, kind="rollout_reads")
    gallery = client.app.app.routes[-1].endpoint.__self__.gallery
    assert len(gallery._views) == 2
    assert sum(gallery._views[key[:2]].held(key[2]) for key in gallery._recent) < 10_000
    assert_close(values(client, model=1, layer=0)[1], expected)
