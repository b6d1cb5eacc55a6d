"""A trained classifier leaves the project: as a program, as a folder of timm or of the Hub, and into Python."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

import attention_zoo as az
from attention_zoo.exports.preparation import in_words_of_timm
from attention_zoo.exports.programs import largest_error, onnx_program, run_onnx, run_torch, torch_program
from datamodules.image_folder import centre_crop

SIZE = (8, 8)
IMAGES = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def plain(call, tiny, tmp_path_factory):
    """A run of the attention that timm has too, and its test."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    options = ["--model.mixer", "DotProduct", "--trainer.max_epochs", "1", "--trainer.default_root_dir", folder]
    assert call("fit", "--config", tiny, *options) == 0
    assert call("test", "--ckpt_path", folder, "--trainer.enable_progress_bar", "false") == 0
    return folder


def logits(model, images=IMAGES):
    with torch.inference_mode():
        return model(images)


class TestLoad:
    def test_model_transform_and_classes(self, plain):
        model, transform, names = az.load(plain)
        assert names == [str(digit) for digit in range(10)] and not model.training
        weights = torch.load(plain / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in model.state_dict().items())
        photograph = Image.new("L", (30, 20), 128)
        prepared = transform(photograph)
        assert prepared.shape == (3, *SIZE) and prepared.dtype == torch.float32
        tensor = torch.full((3, 20, 30), 128, dtype=torch.uint8)
        assert_close(transform(tensor), prepared)
        assert logits(model, prepared[None]).shape == (1, 10)

    def test_a_checkpoint_and_a_word(self, plain, tmp_path, monkeypatch):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs/a").symlink_to(plain)
        monkeypatch.chdir(tmp_path)
        wanted = logits(az.load(plain).model)
        assert torch.equal(logits(az.load(plain / "checkpoints/last.ckpt").model), wanted)
        assert torch.equal(logits(az.load("last").model), wanted)

    def test_what_is_no_run(self, tmp_path):
        with pytest.raises(az.InputError, match=r"gone\.ckpt does not exist"):
            az.load(tmp_path / "gone.ckpt")


class TestTimm:
    def test_timm_loads_it_back(self, zoo, plain, tmp_path):
        ended = zoo("export", "--ckpt_path", plain, "--format", "timm", "--out", "out")
        assert ended.code == 0, ended.err
        assert ended.out.startswith("out: timm, 10 classes, images of 8x8; largest difference")
        model = timm.create_model(f"local-dir:{tmp_path}/out", pretrained=True).eval()
        assert type(model).__module__.startswith("timm.")
        assert_close(logits(model), logits(az.load(plain).model))
        config = json.loads((tmp_path / "out/config.json").read_text())
        assert config["label_names"] == [str(digit) for digit in range(10)]
        assert model.pretrained_cfg["input_size"] == (3, *SIZE)
        ours = az.load(tmp_path / "out")
        assert torch.equal(logits(ours.model), logits(model)) and ours.class_names == config["label_names"]
        # the card's way to prepare images squeezes, as the test of the run does, and cuts nothing off
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        photograph = Image.linear_gradient("L").resize((40, 20)).convert("RGB")
        assert_close(transform(photograph), ours.transform(photograph), atol=1.5 / 255 / 0.37, rtol=0)

    def test_the_card_has_the_numbers_of_the_run(self, zoo, plain, tmp_path):
        assert zoo("export", "--ckpt_path", plain, "--format", "huggingface").code == 0
        card = (tmp_path / "model/README.md").read_text()
        lines = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
        (tested,) = (line["metrics"] for line in lines if line["stage"] == "test")
        speed = tested.pop("test/images_per_second")
        assert all(f"| test | {name} | {value:.4g} |" in card for name, value in tested.items()) and tested
        assert speed and "images_per_second" not in card  # which is the machine's
        assert "* parameters: " in card and "create_transform" in card
        assert yaml.safe_load(card.split("---")[1])["library_name"] == "timm"
        assert "Vaswani et al. 2017" in card

    def test_a_reading_that_timm_has_not(self, zoo, run_folder, tmp_path):
        ended = zoo("export", "--ckpt_path", run_folder, "--format", "timm")
        assert ended.code == 2 and ended.err.startswith(
            "error: --format timm cannot express the model: timm has no VarsD"
        )
        assert not (tmp_path / "model").exists()


class TestHuggingFace:
    def test_any_reading_goes_and_comes_back(self, zoo, run_folder, tmp_path):
        ended = zoo("export", "--ckpt_path", run_folder, "--format", "huggingface", "--out", "out")
        assert ended.code == 0, ended.err
        loaded, wanted = az.load(tmp_path / "out"), az.load(run_folder)
        assert torch.equal(logits(loaded.model), logits(wanted.model)) and loaded.class_names == wanted.class_names
        assert "az.load" in (tmp_path / "out/README.md").read_text()
        again = zoo("export", "--ckpt_path", run_folder, "--format", "huggingface", "--out", "out")
        assert again.code == 2 and "out is not empty" in again.err

    def test_a_folder_from_somebody_else_runs_nothing(self, zoo, run_folder, tmp_path):
        assert zoo("export", "--ckpt_path", run_folder, "--format", "huggingface", "--out", "out").code == 0
        config = json.loads((tmp_path / "out/config.json").read_text())
        config["attention_zoo"]["model"]["init_args"]["mixer"]["class_path"] = "os.system"
        (tmp_path / "out/config.json").write_text(json.dumps(config))
        with pytest.raises(az.InputError, match=r"os\.system"):
            az.load(tmp_path / "out")

    def test_weights_of_another_model(self, zoo, run_folder, plain, tmp_path):
        assert zoo("export", "--ckpt_path", run_folder, "--format", "huggingface", "--out", "out").code == 0
        assert zoo("export", "--ckpt_path", plain, "--format", "timm", "--out", "other").code == 0
        shutil.copy(tmp_path / "other/model.safetensors", tmp_path / "out/model.safetensors")
        with pytest.raises(az.InputError, match="does not hold the weights"):
            az.load(tmp_path / "out")
        (tmp_path / "out/model.safetensors").write_bytes(b"nothing")
        with pytest.raises(az.InputError, match="does not hold the weights"):
            az.load(tmp_path / "out")


class TestPreparation:
    @pytest.mark.parametrize("side", [8, 32, 99, 224])
    def test_timm_prepares_photographs_alike(self, side):
        photograph = Image.effect_noise((300, 280), 60).convert("RGB")
        tensor = pil_to_tensor(photograph)
        for resize in (v2.Resize((side, side), antialias=True), centre_crop((side, side))):
            words = in_words_of_timm(resize, (side, side))
            transform = timm.data.create_transform((3, side, side), **words, normalize=False)
            assert (transform(photograph).int() - resize(tensor).int()).abs().max() <= 2

    def test_what_timm_has_no_words_for(self):
        assert in_words_of_timm(nn.Identity(), SIZE) is None
        assert in_words_of_timm(centre_crop((8, 16)), (8, 16)) is None


class TestPrograms:
    @pytest.mark.slow
    @pytest.mark.parametrize("format", ["torch", "onnx"])
    def test_programs_agree_for_any_number_of_images(self, zoo, run_folder, tmp_path, format):
        if format == "onnx":
            pytest.importorskip("onnxruntime")
        ended = zoo("export", "--ckpt_path", run_folder, "--format", format, "--out", f"out.{format}")
        assert ended.code == 0, ended.err
        content = (tmp_path / f"out.{format}").read_bytes()
        run = run_torch(content) if format == "torch" else run_onnx(content)
        model = az.load(run_folder).model
        for count in (1, 4):
            assert_close(run(IMAGES[:count]), logits(model, IMAGES[:count]), rtol=1e-4, atol=1e-5)
        assert b'"classes": ["0", "1"' in content and b'"crop_mode": "squash"' in content
        assert zoo("export", "--ckpt_path", run_folder, "--format", format, "--out", f"out.{format}").code == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("format, file", [("torch", "model.pt2"), ("onnx", "model.onnx")])
    def test_the_site_says_how_programs_are_run(self, zoo, plain, tmp_path, monkeypatch, format, file):
        if format == "onnx":
            pytest.importorskip("onnxruntime")
        assert zoo("export", "--ckpt_path", plain, "--format", format).code == 0
        page = (Path(__file__).parents[2] / "docs/how_to/take_out.md").read_text()
        (code,) = (block for block in re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M) if file in block)
        (tmp_path / "user.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        told = runpy.run_path("user.py")
        assert told["logits"].shape == (2, 10) and told["facts"]["image_size"] == [8, 8]
        wanted = logits(az.load(plain).model, torch.zeros(2, 3, *SIZE))
        assert_close(torch.as_tensor(told["logits"]).detach(), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_what_onnx_has_no_operation_for_is_named(self):
        pytest.importorskip("onnxruntime")

        class Odd(nn.Module):
            def forward(self, x):
                return torch.special.bessel_j0(x).flatten(1)

        with pytest.raises(az.InputError, match="--format onnx cannot express the model: operation prims.bessel_j0"):
            onnx_program(Odd(), SIZE, {})

    @pytest.mark.slow
    def test_the_number_of_images_has_a_name(self):
        pytest.importorskip("onnxruntime")
        from onnxruntime import InferenceSession

        session = InferenceSession(onnx_program(nn.Sequential(nn.Flatten(), nn.ReLU()), SIZE, {}))
        assert [axes.shape[0] for axes in (*session.get_inputs(), *session.get_outputs())] == ["batch", "batch"]

    def test_what_depends_on_values_is_refused(self):
        class Odd(nn.Module):
            def forward(self, x):
                return x[x > 0].sum().item() * x if x.sum() > 0 else x

        with pytest.raises(az.InputError, match="--format torch cannot express the model"):
            torch_program(Odd(), SIZE, {})

    def test_a_program_that_computes_something_else(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        assert largest_error(model, model, SIZE) == 0
        for other in (lambda x: model(x) + 1, lambda x: model(x) * torch.nan, lambda x: model(x)[:, :2]):
            with pytest.raises(az.InputError, match="exported model is wrong"):
                largest_error(model, other, SIZE)
