from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DistributedSampler

import datamodules
from attention_zoo.errors import InputError
from tests.datamodules.files import TRAINED_ON

LOADERS = {"train": "fit", "val": "fit", "test": "test"}


def loader(data, part):
    data.setup(LOADERS.get(part, part))
    return getattr(data, f"{part}_dataloader")()


def test_every_datamodule_is_tested():
    classes = {name: getattr(datamodules, name) for name in datamodules.__all__}
    ours = {name for name, cls in classes.items() if issubclass(cls, datamodules.ImageDataModule)}
    for_test_only = {
        "MIT1003",
        "OSIE",
        "ImageNetP",
        "PACSRobustness",
        "VOCForeground",
        "CIFAR10Robustness",
        "ImageNetRobustness",
        "TinyImageNetRobustness",
    }
    for_test_only |= {"TwoObjects", "COCOObjects", "LVISObjects"}
    validating_is_testing = {"ImageNet", "TinyImageNet"}
    elsewhere = {"ImageDataModule", "RobustnessDataModule"} | for_test_only | validating_is_testing
    assert ours - elsewhere == set(TRAINED_ON)


@pytest.mark.parametrize("part", LOADERS)
@pytest.mark.parametrize("size", [None, 12, (10, 14)])
def test_batch(make, part, size):
    data = make(batch_size=3, num_workers=0, **({"image_size": size} if size else {}))
    batch = next(iter(loader(data, part)))
    assert set(batch) == {"image", "label", "index"}
    assert batch["image"].shape == (3, 3, *data.image_size)
    assert batch["image"].dtype == torch.float32
    if size:
        assert data.image_size == (size if isinstance(size, tuple) else (size, size))
    for name in ("label", "index"):
        assert batch[name].shape == (3,) and batch[name].dtype == torch.int64
    split = data.splits[part]
    assert batch["label"].tolist() == [split.columns["label"][i] for i in batch["index"].tolist()]
    assert len(data.class_names) == data.num_classes > max(split.columns["label"])


@pytest.mark.parametrize("part", ["val", "test"])
def test_evaluation_is_in_order_complete_and_repeatable(make, part):
    data = make(batch_size=4, num_workers=0)
    first, second = list(loader(data, part)), list(loader(data, part))
    assert torch.cat([batch["index"] for batch in first]).tolist() == list(range(len(data.splits[part].images)))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_normalisation(make):
    data = make(batch_size=2, num_workers=0, augment=[], mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    plain = make(batch_size=2, num_workers=0, augment=[], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batch, pixels = next(iter(loader(data, "val"))), next(iter(loader(plain, "val")))
    assert 0 <= pixels["image"].min() < pixels["image"].max() <= 1
    expected = (pixels["image"] - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 1, 2])[
        :, None, None
    ]
    torch.testing.assert_close(batch["image"], expected)


def test_pixels_of_data_at_its_own_size_are_those_of_the_file(make):
    data = make(batch_size=1, num_workers=0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batch = next(iter(loader(data, "val")))
    image = data.splits["val"].images[0]
    if image.shape[-2:] == data.image_size:
        torch.testing.assert_close(batch["image"][0], image / 255)
    else:
        assert type(data) in (datamodules.ImageFolder, datamodules.PACS)


def test_training_drops_the_incomplete_batch_unless_it_is_the_only_one(make):
    data = make(batch_size=7, num_workers=0)
    batches = list(loader(data, "train"))
    size = len(data.splits["train"].images)
    assert [len(batch["index"]) for batch in batches] == [7] * (size // 7)
    data.batch_size = size + 1
    assert [len(batch["index"]) for batch in data.train_dataloader()] == [size]


@pytest.mark.parametrize("world", [2, 4])
def test_the_processes_of_a_trainer_share_the_evaluation(make, world):
    data = make(batch_size=2, num_workers=0)
    data.setup("test")
    counted, lengths = [], set()
    for rank in range(world):
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
        indices = torch.cat([batch["index"] for batch in data.test_dataloader()])
        lengths.add(len(indices))
        counted += indices[indices >= 0].tolist()
        assert (indices == -1).sum() <= 1
    assert len(lengths) == 1
    assert sorted(counted) == list(range(len(data.splits["test"].images)))


class Recorder(L.LightningModule):
    """Writes down which samples it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs = {}
        self.evaluated = []

    def training_step(self, batch):
        self.epochs.setdefault(self.current_epoch, []).extend(batch["index"].tolist())
        return self.weight * batch["image"].mean()

    def validation_step(self, batch):
        self.evaluated += batch["index"].tolist()

    def predict_step(self, batch):
        return batch["path"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, **kwargs):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=tmp_path, **quiet, **kwargs)


def test_under_a_trainer_a_resumed_run_sees_what_an_uninterrupted_one_sees(flat_folder, tmp_path):
    def data():
        return datamodules.ImageFolder(str(flat_folder), image_size=8, batch_size=4, num_workers=0)

    whole, half, rest = Recorder(), Recorder(), Recorder()
    trainer(tmp_path, max_epochs=3).fit(whole, data())
    first = trainer(tmp_path, max_epochs=1)
    first.fit(half, data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, max_epochs=3).fit(rest, data(), ckpt_path=tmp_path / "half.ckpt")
    assert whole.epochs[0] != whole.epochs[1]
    assert half.epochs | rest.epochs == whole.epochs
    assert torch.equal(whole.weight, rest.weight)


def test_a_trainer_keeps_the_samplers(flat_folder, tmp_path):
    data = datamodules.ImageFolder(str(flat_folder), image_size=8, batch_size=4, num_workers=0)
    model, run = Recorder(), trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    assert isinstance(run.train_dataloader.sampler, DistributedSampler)
    assert model.evaluated[-3:] == [0, 1, 2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_predict_needs_no_training_data(tmp_path, flat_folder, num_workers):
    (flat_folder / "notes.txt").write_text("no image")
    (flat_folder / "red" / "000.png").rename(flat_folder / "first.PNG")
    for cls, kwargs in (
        (datamodules.Digits, {}),
        (datamodules.CIFAR10, {"root": "/nowhere"}),
        (datamodules.ImageFolder, {"root": "/nowhere", "class_names": ["cat", "dog"], "image_size": 16}),
    ):
        data = cls(predict_dir=str(flat_folder), batch_size=8, num_workers=num_workers, **kwargs)
        assert data.num_classes == len(data.class_names)
        paths = [path for batch in trainer(tmp_path).predict(Recorder(), data) for path in batch]
        assert paths == sorted(str(path) for path in flat_folder.rglob("*.[pP][nN][gG]"))
        batch = next(iter(data.predict_dataloader()))
        assert set(batch) == {"image", "index", "path"}
        assert batch["image"].shape == (8, 3, *data.image_size)
        assert batch["index"].tolist() == list(range(8))


def test_predict_dir_is_checked(make, tmp_path):
    with pytest.raises(InputError, match="predict needs predict_dir"):
        make().setup("predict")
    with pytest.raises(InputError, match=f"no folder {tmp_path}/none"):
        make(predict_dir=str(tmp_path / "none")).setup("predict")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"no images in {tmp_path}/empty: expected files ending in .jpg"):
        make(predict_dir=str(tmp_path / "empty")).setup("predict")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"image_size": (8, 0)}, "image_size must be at least 1, got 0"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
    ],
)
def test_arguments_out_of_range(make, kwargs, message):
    with pytest.raises(InputError, match=message):
        make(**kwargs)
