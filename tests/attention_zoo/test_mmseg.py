"""The way to mmsegmentation: stock configs with our backbones; what is missing without a compiler says so."""

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.errors import InputError
from attention_zoo.mmseg import build_part, check_part, import_mmseg, stock_config
from attention_zoo.models import build_backbone

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}


def stock(backbone, **heads):
    """mmsegmentation's UPerNet on a ViT, with another backbone, small, and without SyncBN, which CPUs lack."""
    import_mmseg()
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")  # as mmsegmentation's own commands do
    model = stock_config("_base_/models", "upernet_vit-b16_ln_mln").model
    model.pretrained = None
    model.backbone = backbone
    model.neck.update(in_channels=[24] * 4, out_channels=24)
    norm = {"type": "BN"}
    model.decode_head.update(in_channels=[24] * 4, channels=16, norm_cfg=norm, **heads)
    model.auxiliary_head.update(in_channels=24, channels=16, norm_cfg=norm, **heads)
    torch.manual_seed(0)
    return MODELS.build(model)


@pytest.mark.parametrize("mixer", ["VarsD", {"type": "Probabilistic", "key_adaptation": 1}])
def test_a_stock_config_with_our_backbone_trains_and_predicts(mixer):
    zoo = {"type": "ZooBackbone", "model": "vit_tiny_patch16_224", "mixer": mixer, "model_args": TINY}
    model = stock({**zoo, "image_size": (32, 64)}, num_classes=5)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model.init_weights()
    image = torch.randn(2, 3, 32, 64)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 32, 64)))) for _ in image]
    losses = model.loss(image, samples)
    assert set(losses) == {"decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg"}
    sum(losses[name] for name in losses if "loss" in name).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    meta = {"img_shape": (32, 64), "ori_shape": (40, 80), "pad_shape": (32, 64)}
    found = model.eval().predict(image, [SegDataSample(metainfo=meta) for _ in image])
    assert found[0].pred_sem_seg.data.shape == (1, 40, 80)


def test_the_zoos_backbone_is_what_build_backbone_builds():
    image = torch.randn(1, 3, 32, 64)
    torch.manual_seed(0)
    ours = build_backbone("vit_tiny_patch16_224", mixer="VarsD", top_down="absvit", model_args=TINY).eval()
    torch.manual_seed(0)
    config = {"type": "ZooBackbone", "model": "vit_tiny_patch16_224", "mixer": {"type": "VarsD"}, "top_down": "absvit"}
    theirs = build_part("MODELS", "backbone", {**config, "model_args": TINY}).eval()
    assert_close(theirs(image), ours(image))


def test_bad_input():
    config = {"type": "ZooBackbone", "model": "vit_tiny_patch16_224", "mixer": {"type": "VarsX"}}
    with pytest.raises(InputError, match="unknown mixer 'VarsX'"):
        build_part("MODELS", "backbone", config)


def test_every_head_and_loss_can_be_imported():
    import_mmseg()
    from mmseg.registry import MODELS

    for name in ("UPerHead", "FCNHead", "PSPHead", "DepthwiseSeparableASPPHead", "SegformerHead", "PointHead"):
        assert MODELS.get(name) is not None
    for name in ("CrossEntropyLoss", "DiceLoss", "FocalLoss"):
        assert build_part("MODELS", "loss", {"type": name}) is not None


POPEN = {"type": "subprocess.Popen", "args": ["touch", "owned"]}

FOREIGN = {
    "a loss": {"type": "FCNHead", "loss_decode": POPEN},
    "one of several losses": {"type": "FCNHead", "loss_decode": [{"type": "CrossEntropyLoss"}, POPEN]},
    "a norm": {"type": "FCNHead", "norm_cfg": POPEN},
    "an activation": {"type": "FCNHead", "act_cfg": POPEN},
    "a convolution": {"type": "FCNHead", "conv_cfg": POPEN},
    "a sampler": {"type": "FCNHead", "sampler": POPEN},
    "an initialisation": {"type": "FCNHead", "init_cfg": POPEN},
    "an initialisation that overrides": {
        "type": "FCNHead",
        "init_cfg": {"type": "Normal", "override": {"type": "os.system", "name": "conv_seg"}},
    },
    "the head itself": POPEN,
    "a module of the working folder": {"type": "evil"},
    "a part in the working folder": {"type": "FCNHead", "loss_decode": {"type": "evil"}},
    "a function of torch": {"type": "FCNHead", "act_cfg": {"type": "torch.load"}},
    "another scope": {"type": "FCNHead", "loss_decode": {"type": "mmengine.BaseModel"}},
    "its own scope": {"type": "mmseg.FCNHead"},
    "a scope beside": {"type": "FCNHead", "loss_decode": {"type": "CrossEntropyLoss", "_scope_": "evil"}},
    "no name": {"type": "FCNHead", "loss_decode": {"type": ["evil"]}},
    "a file of weights": {"type": "FCNHead", "init_cfg": {"type": "Pretrained", "checkpoint": "evil.pth"}},
    "an address of weights": {"type": "ResNet", "depth": 18, "pretrained": "http://evil.example/x.pth"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_config_names_registered_parts_alone(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('owned', 'w')")
    config = {"in_channels": 4, "channels": 4, "num_classes": 2, **FOREIGN[case]}
    with pytest.raises(InputError, match="registries|unknown head|unpickle"):
        build_part("MODELS", "head", config)
    assert not (tmp_path / "owned").exists()


@given(
    part=st.sampled_from(["os.system", "evil", "builtins.exec", "torch.hub.load", "mmengine.runner.Runner", "Runner"]),
    path=st.lists(st.sampled_from(["loss_decode", "norm_cfg", "sampler", "transforms", 0]), max_size=6),
)
def test_no_depth_hides_a_part(part, path):
    config = {"type": part}
    for step in path:
        config = [{"type": "BN"}, config] if step == 0 else {step: config}
    with pytest.raises(InputError, match="registries"):
        check_part("head", {"type": "FCNHead", "inner": config})


def test_transforms_of_a_checkpoint_are_registered_ones(tmp_path, monkeypatch):
    from datamodules.segmentation.mmseg_data import MMSegData, MMSegTransforms

    monkeypatch.chdir(tmp_path)
    nested = {"type": "RandomChoice", "transforms": [[POPEN]]}
    for step in (POPEN, nested, {"type": "RandomApply", "transforms": [POPEN], "prob": 1.0}):
        with pytest.raises(InputError, match="registries|unknown transform"):
            MMSegTransforms([step])
    unpickles = {"type": "BaseDataset", "ann_file": "http://evil.example/x.pkl", "data_root": "."}
    with pytest.raises(InputError, match="unknown data set|no list of images and masks"):
        MMSegData(parts={"train": unpickles, "val": unpickles}).class_names  # noqa: B018
    assert not (tmp_path / "owned").exists()


class Owns:
    """Makes a file where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


YAML_THAT_RUNS = "!!python/object/apply:os.system ['touch owned']"


@pytest.mark.parametrize("name", ["evil.pkl", "evil.yaml", "evil.yml", "evil.pickle"])
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "LovaszLoss"])
def test_no_part_reads_a_file_that_could_hold_code(name, loss, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(YAML_THAT_RUNS.encode() if name[5] == "y" else pickle.dumps(Owns()))
    asked = {"type": loss, "class_weight": name, **({"reduction": "none"} if loss == "LovaszLoss" else {})}
    config = {"type": "FCNHead", "in_channels": 4, "channels": 4, "num_classes": 2, "loss_decode": [asked]}
    with pytest.raises(InputError, match="could hold code"):
        build_part("MODELS", "head", config)
    assert not Path("owned").exists()


def test_values_of_a_json_file_are_read(tmp_path):
    (tmp_path / "weights.json").write_text("[1.0, 2.0]")
    loss = build_part("MODELS", "loss", {"type": "CrossEntropyLoss", "class_weight": str(tmp_path / "weights.json")})
    assert loss.class_weight == [1.0, 2.0]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("name", ["evil.pkl", "evil.yaml"])
def test_no_data_set_reads_a_list_that_could_hold_code(name, lazy, tmp_path, monkeypatch):
    from datamodules.segmentation.mmseg_data import MMSegData

    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(YAML_THAT_RUNS.encode() if name[5] == "y" else pickle.dumps(Owns()))
    part = {"type": "DecathlonDataset", "ann_file": name, "data_root": ".", "data_prefix": {}, "lazy_init": lazy}
    part["metainfo"] = {"classes": ["a", "b"]}
    with pytest.raises(InputError, match="could hold code"):
        MMSegData(parts={"train": part}).load(["train"])
    assert not Path("owned").exists()


def test_images_are_not_unpickled():
    inner = {"type": "LoadBiomedicalData", "decode_backend": "pickle"}
    with pytest.raises(InputError, match="unpickle"):
        check_part("transform", {"type": "RandomApply", "transforms": [inner], "prob": 1.0})


def test_a_class_may_stand_for_its_name():
    head = import_mmseg().models.decode_heads.FCNHead
    config = {"type": head, "in_channels": 4, "channels": 4, "num_classes": 2, "act_cfg": {"type": "ReLU"}}
    assert isinstance(build_part("MODELS", "head", config), head)
