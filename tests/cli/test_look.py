"""The attention page from the command line: what it opens with, and what it refuses."""

import socket
import sys

import pytest
import torch
import yaml

pytest.importorskip("starlette", reason="the extra `pages` is not installed")

from starlette.testclient import TestClient
from torch.testing import assert_close

from attention_zoo.analysis import attention_maps
from attention_zoo.cli.look import of_run
from attention_zoo.pages import server
from tests.cli.test_interactive import TINY as INTERACTIVE
from tests.cli.test_semantic import MODEL as SEMANTIC


@pytest.fixture
def look(zoo, monkeypatch):
    """Run the command; instead of serving its page, ask it."""

    def run(*argv):
        served = []
        monkeypatch.setattr(server, "serve", lambda page, host, port: served.append((page, host, port)))
        ended = zoo("look", *argv)
        assert (ended.code, ended.err) == (0, "")
        ((page, host, port),) = served
        assert (host, port) == ("127.0.0.1", 8000)
        return page, TestClient(server.application(page), "http://127.0.0.1")

    return run


def test_a_run_opens_with_images_of_its_data(look, run_folder):
    page, client = look("--ckpt_path", run_folder, "--ckpt_path", run_folder / "checkpoints" / "last.ckpt")
    facts = client.get("/api/facts").json()
    assert [model["name"] for model in facts["models"]] == ["run (1)", "run (2)"]
    assert facts["images"][0] == "val 0" and len(facts["images"]) == 24 and facts["note"] == ""
    view = client.get("/api/view", params={"model": 1, "image": "val 3"}).json()
    assert [layer["mixer"] for layer in view["layers"]] == ["VarsD", "VarsD"]
    assert "%" in view["prediction"]
    subject, data = of_run(str(run_folder), torch.device("cpu"), False)
    data.setup("validate")
    batch = data.collate("val")([data.dataset("val")[3]])["image"]
    expected = attention_maps(subject.model((8, 8)), batch)[1][0, :, 1 + 5].mean(0)
    given = client.get("/api/values", params={"model": 1, "image": "val 3", "layer": 1, "token": "1,1"}).content
    numbers = torch.frombuffer(bytearray(given), dtype=torch.uint8)[-4 * len(expected) :].clone().view(torch.float32)
    assert_close(numbers, expected, rtol=1e-4, atol=1e-6)


def test_mixers_in_a_model_on_images_of_a_folder(look, images):
    page, client = look("--mixers", "DotProduct", "VarsD", "--images", images)
    facts = client.get("/api/facts").json()
    assert facts["images"] == ["im0.png", "im2.png", "im4.png", "im6.png", "sub/im1.png", "sub/im3.png", "sub/im5.png"]
    assert facts["note"].startswith("vit_tiny_patch16_224. The weights are random")
    assert [model["name"] for model in facts["models"]] == ["DotProduct", "VarsD"]
    _, other = look("--mixers", "DotProduct", "--images", images, images / "sub")
    assert set(other.get("/api/facts").json()["images"]) == {*facts["images"], "im1.png", "im3.png", "im5.png"}
    for place, name in enumerate(("DotProduct", "VarsD")):
        view = client.get("/api/view", params={"model": place, "image": "sub/im1.png"}).json()
        assert view["layers"][0]["mixer"] == name


@pytest.mark.slow
@pytest.mark.parametrize("task", ["interactive", "semantic"])
def test_a_run_of_any_task(look, call, small_trainer, tmp_path, task):
    scenes = {"scenes": [4, 3, 5], "classes": 5, "image_size": [32, 48], "batch_size": 2, "num_workers": 0}
    content = {
        "model": {"class_path": "SemanticSegmentation", "init_args": SEMANTIC},
        "data": {"class_path": "Shapes", "init_args": scenes},
        "trainer": small_trainer,
    }
    (tmp_path / "tiny.yaml").write_text(INTERACTIVE if task == "interactive" else yaml.safe_dump(content))
    assert call("fit", "--config", tmp_path / "tiny.yaml", "--trainer.default_root_dir", tmp_path / "run") == 0
    page, client = look("--ckpt_path", tmp_path / "run")
    image = client.get("/api/facts").json()["images"][0]
    view = client.get("/api/view", params={"model": 0, "image": image}).json()
    grid = [4, 4] if task == "interactive" else [4, 6]
    assert [layer["grid"] for layer in view["layers"]] == [grid, grid] and view["prediction"] == ""
    given = client.get("/api/values", params={"model": 0, "image": image, "layer": 1, "token": "3,3"})
    assert given.status_code == 200
    assert client.get("/api/values", params={"model": 0, "image": image, "kind": "norms"}).status_code == 200


def test_photographs_are_there_where_nothing_else_is(look):
    _, client = look("--model", "vit_tiny_patch16_224")
    assert client.get("/api/facts").json()["images"] == ["cat", "coffee", "astronaut", "china", "flower"]
    view = client.get("/api/view", params={"model": 0, "image": "china"}).json()
    assert view["size"] == [224, 336]  # the shorter side is the model's own


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "nothing to look at: give --ckpt_path"),
        (["--ckpt_path", "last", "--mixers", "VarsD"], "give --ckpt_path, or --mixers and --model"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--mixers", "VarsX"], "VarsD"),
        (["--model", "vit_tiny_patch16_225"], "vit_tiny_patch16_224"),
        (["--model", "resnet18"], "ResNet has no attention to look at"),
        (["--mixers", "VarsD", "--images", "nowhere"], "nowhere"),
        (["--mixers", "VarsD", "--device", "meta"], "meta"),
    ],
)
def test_bad_input_ends_in_one_line(zoo, argv, words):
    ended = zoo("look", *argv)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ") and words in ended.err and len(ended.err.splitlines()) == 1


def test_a_port_that_is_taken_is_said(zoo, run_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = zoo("look", "--ckpt_path", run_folder, "--port", taken.getsockname()[1])
    assert ended.code == 2 and "choose another --port" in ended.err


def test_what_pages_need_is_named_where_it_is_missing(zoo, monkeypatch):
    for name in ("attention", "server", "gallery"):
        monkeypatch.delitem(sys.modules, f"attention_zoo.pages.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "starlette.datastructures", None)
    ended = zoo("look", "--mixers", "VarsD")
    assert ended.code == 2 and "pip install 'attention_zoo[pages]'" in ended.err
