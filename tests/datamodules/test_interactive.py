"""Interactive segmentation data: real layouts, views, trials, clicks to predict from, bad input."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import attention_zoo as az
import datamodules as dm
from attention_zoo.seeding import seeded
from datamodules.interactive.crops import Region, Viewing, crop, to_view
from datamodules.interactive.lvis import paint
from tests.datamodules import interactive_files as files

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


def masks_of(data, part="test"):
    """Name, object pixels and ignored pixels of every sample, images whole."""
    data.setup("test" if part == "test" else "fit")
    split = data.splits[part]
    found = []
    for index in range(len(split.images)):
        objects = split.columns["objects"][index]
        assert split.images[index].shape[1:] == objects.labels.shape
        for number in objects.numbers:
            mask = objects.mask(number)
            found.append((split.columns["name"][index], int((mask == 1).sum()), int((mask == 255).sum())))
    return found


def test_grabcut_matches_by_stem_and_ignores_128(tmp_path):
    found = masks_of(dm.GrabCut(str(files.write_grabcut(tmp_path)), **SMALL))
    assert [row[1:] for row in found] == [(168, 14), (168, 14)]


def test_berkeley_has_one_file_an_object(tmp_path):
    found = masks_of(dm.Berkeley(str(files.write_berkeley(tmp_path)), **SMALL))
    assert [row[1:] for row in found] == [(168, 0), (168, 0)]


def test_davis_takes_what_is_not_black(tmp_path):
    assert masks_of(dm.DAVIS(str(files.write_davis(tmp_path)), **SMALL))[0][1:] == (168, 0)


def test_hqseg44k_is_four_sets(tmp_path):
    found = masks_of(dm.HQSeg44K(str(files.write_hqseg44k(tmp_path)), **SMALL))
    assert [row[1] for row in found] == [168, 182, 196, 210]
    with pytest.raises(az.InputError, match="DIS5K/DIS-VD/im"):
        masks_of(dm.HQSeg44K(str(tmp_path / "none"), **SMALL))


class TestDAVIS585:
    def batch(self, root, **options):
        data = dm.DAVIS585(str(root), **{**SMALL, **options})
        data.setup("test")
        return next(iter(data.test_dataloader()))

    def test_masks_to_start_from(self, tmp_path):
        root = files.write_davis585(tmp_path)
        assert [row[1:] for row in masks_of(dm.DAVIS585(str(root), **SMALL))] == [(168, 0)]
        batch = self.batch(root, crop="random")
        assert batch["initial"].dtype == torch.uint8
        assert batch["image"].shape == (1, 3, *files.SIZE)
        assert torch.equal(batch["initial"][0], torch.from_numpy(files.blob(10, 20, 6)))
        assert self.batch(root, crop="random", initial_mask="stm")["initial"].sum() == 18 * 20
        assert "initial" not in self.batch(root, initial_mask="zero")

    def test_they_are_cut_out_as_the_mask_is(self, tmp_path):
        batch = self.batch(files.write_davis585(tmp_path), image_size=32, corner_noise=0.0)
        plain = self.batch(tmp_path, image_size=32, corner_noise=0.0, initial_mask="zero")
        for key in ("image", "mask", "box"):
            assert torch.equal(batch[key], plain[key])
        assert batch["initial"].shape == batch["mask"].shape
        assert ((batch["initial"] == 1) <= (batch["mask"] == 1)).all()
        assert batch["initial"].sum() == 6 * 14

    @pytest.mark.parametrize("gone", ["00009.jpg", "init_sp_object1_00009.png"])
    def test_what_is_missing_is_named(self, tmp_path, gone):
        root = files.write_davis585(tmp_path)
        (root / "bear" / gone).unlink()
        with pytest.raises(az.InputError, match=f"needs .*{gone}, which does not exist"):
            self.batch(root)

    def test_bad_input(self, tmp_path):
        with pytest.raises(az.InputError, match="SEQUENCE/OBJECT_FRAME.png"):
            self.batch(tmp_path)
        with pytest.raises(az.InputError, match="unknown initial_mask 'spp'"):
            dm.DAVIS585(str(tmp_path), initial_mask="spp")
        with pytest.raises(az.InputError, match="part of DAVIS585"):
            dm.DAVIS585(str(tmp_path)).load(["train"])
        files.write_davis585(tmp_path)
        files.write_mask(tmp_path / "bear" / "init_sp_object1_00009.png", files.blob(1, 2, size=(9, 9)))
        with pytest.raises(az.InputError, match="another size"):
            self.batch(tmp_path)


def test_sbd_tests_every_object_and_trains_on_full_ones(tmp_path):
    data = dm.SBD(str(files.write_sbd(tmp_path)), **SMALL)
    assert [row[1] for row in masks_of(data)] == [168, 39 + 20]
    assert [row[1] for row in masks_of(data, "train")] == [168, 168]
    assert [row[1] for row in masks_of(data, "val")] == [168]


@pytest.mark.parametrize("palette", [True, False])
def test_voc_has_one_sample_an_object_and_a_void(tmp_path, palette):
    data = dm.VOCInstances(str(files.write_voc_instances(tmp_path, palette)), **SMALL)
    assert [row[1:] for row in masks_of(data)] == [(168, 14), (168, 14)]


def test_camvid_objects_are_large_components(tmp_path):
    data = dm.CamVidObjects(str(files.write_camvid(tmp_path)), min_area=100, **SMALL)
    assert [row[1:] for row in masks_of(data)] == [(12 * 18, 60), (12 * 14, 60)]


def test_lvis_overlaps_and_files_of_train(tmp_path):
    data = dm.LVIS(str(files.write_lvis(tmp_path)), min_area=50, **SMALL)
    assert [row[1] for row in masks_of(data)] == 2 * [168, 6 * 14, 14 * 14]
    assert len({row[0] for row in masks_of(data, "train")}) == 2  # one sample an image


def test_polygons_are_filled_between_rounded_vertices():
    labels = paint([[files.box_polygon(3, 4, 5, 6)], [[0, 0, 0, 0]]], (12, 14))
    assert np.argwhere(labels == 1).min(0).tolist() == [3, 4]
    assert np.argwhere(labels == 1).max(0).tolist() == [7, 9]


def test_folder_keeps_the_objects_of_an_image_together(tmp_path):
    data = dm.MaskFolder(str(files.write_folder(tmp_path)), val_fraction=0.2, **SMALL)
    data.setup("fit")
    data.setup("test")
    names = {part: [name.rpartition("/")[2] for name in data.splits[part].columns["name"]] for part in data.splits}
    assert [len(names[part]) for part in ("train", "val", "test")] == [8, 2, 10]
    assert not {name.partition("#")[0] for name in names["train"]} & {name.partition("#")[0] for name in names["val"]}


def test_folder_without_parts_is_split_by_fractions(tmp_path):
    files.write_folder(tmp_path, parts=("",))
    data = dm.MaskFolder(str(tmp_path), val_fraction=0.2, test_fraction=0.2, **SMALL)
    data.setup("fit")
    data.setup("test")
    assert {part: len(data.splits[part].images) for part in data.splits} == {"train": 6, "val": 2, "test": 2}


def test_scenes_are_the_same_every_time():
    batches = []
    for _ in range(2):
        data = dm.ObjectScenes(scenes=(3, 1, 2), **SMALL)
        data.setup("test")
        batches.append(list(data.test_dataloader()))
    assert [batch["name"] for batch in batches[0]] == [batch["name"] for batch in batches[1]]
    for one, other in zip(*batches, strict=True):
        for key in ("image", "mask", "box", "index"):
            assert torch.equal(one[key], other[key])
    assert batches[0][0]["image"].dtype == torch.float32
    assert batches[0][0]["mask"].dtype == torch.uint8
    assert sum(len(batch["index"]) for batch in batches[0]) == len(data.dataset("test"))


def test_training_batches_differ_from_epoch_to_epoch_only():
    data = dm.ObjectScenes(scenes=(3, 1, 1), **SMALL)
    data.setup("fit")
    dataset = data.dataset("train")
    from datamodules.sampling import SampleKey

    first, again, other = (dataset[SampleKey(epoch, 1, True)] for epoch in (0, 0, 1))
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["box"], other["box"])


def test_trials_have_noise_of_their_own(tmp_path):
    data = dm.GrabCut(str(files.write_grabcut(tmp_path)), trials=3, **SMALL)
    data.setup("test")
    dataset = data.dataset("test")
    assert len(dataset) == 6
    boxes = [dataset[index]["box"] for index in range(6)]
    assert [dataset[index]["name"][-6:] for index in range(6)] == 3 * ["a0.bmp"] + 3 * ["a1.bmp"]
    assert not torch.equal(boxes[0], boxes[1])
    assert torch.equal(boxes[1], dataset[1]["box"])


def test_whole_images_share_a_batch_with_their_size(tmp_path):
    files.write_grabcut(tmp_path)
    files.write_image(tmp_path / "data_GT" / "b.jpg", 5, (30, 30))
    files.write_mask(tmp_path / "boundary_GT" / "b.png", 255 * files.blob(3, 4, size=(30, 30)))
    data = dm.GrabCut(str(tmp_path), crop="random", **SMALL)
    data.setup("test")
    shapes = [tuple(batch["mask"].shape) for batch in data.test_dataloader()]
    assert shapes == [(2, 40, 60), (1, 30, 30)]


VIEWING = Viewing((32, 32), padding=0.25, noise=0.0, fill=(9, 9, 9))


def test_a_view_keeps_the_scale_of_an_object_that_fits():
    mask = torch.from_numpy(files.blob(10, 20))
    image = torch.arange(40 * 60, dtype=torch.float32).view(1, 40, 60).expand(3, -1, -1).to(torch.uint8)
    with seeded(0):
        view = VIEWING.around(image, mask)
    assert (view.mask == 1).sum() == 168
    rows, columns = view.box.view(2, 2).sort(0).values.T.tolist()
    inside = (view.mask == 1).nonzero()
    assert [inside.min(0).values.tolist(), inside.max(0).values.tolist()] == [
        [rows[0], columns[0]],
        [rows[1], columns[1]],
    ]
    assert torch.equal(view.image[0][view.mask == 1], image[0][mask == 1])


def test_a_view_of_a_large_object_is_smaller_and_what_is_outside_counts_nowhere():
    mask = torch.from_numpy(files.blob(0, 0, 40, 60))
    view = VIEWING.around(torch.zeros(3, 40, 60, dtype=torch.uint8), mask)
    assert view.image.shape == (3, 32, 32)
    assert set(view.mask.unique().tolist()) == {1, 255}
    assert (view.image[:, view.mask == 255] >= 8).float().mean() > 0.8
    low, high = view.box.view(2, 2).sort(0).values
    assert low[1] == pytest.approx(32 * 0.25 / 1.5, abs=1)
    assert high[1] == pytest.approx(32 * 1.25 / 1.5, abs=1)


def test_a_thin_object_does_not_vanish():
    mask = torch.zeros(400, 600, dtype=torch.uint8)
    mask[200] = 1
    assert (VIEWING.around(torch.zeros(3, 400, 600, dtype=torch.uint8), mask).mask == 1).any()


def test_random_crops_show_some_of_the_object():
    mask = torch.from_numpy(files.blob(36, 56, 2, 2))
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    for number in range(20):
        with seeded(number):
            view = VIEWING.somewhere(image, mask, (0.75, 1.5))
        assert view.image.shape == (3, 32, 32)
        assert (view.mask == 1).any()
        assert (view.mask == 255).sum() < 32 * 32 / 2


def test_crop_beyond_the_image():
    found = crop(torch.ones(1, 4, 4, dtype=torch.uint8), Region(-1, 2, 3, 4), (7,))
    assert found[0].tolist() == [[7, 7, 7, 7], [1, 1, 7, 7], [1, 1, 7, 7]]


def test_points_move_with_their_region():
    region = Region(10, 20, 16, 8)
    assert to_view(torch.tensor([[10.0, 20.0], [25.0, 27.0]]), region, (16, 8)).tolist() == [[0, 0], [15, 7]]
    assert to_view(torch.tensor([9.5, 19.5]), region, (32, 32)).tolist() == [-0.5, -0.5]


def test_reflection_moves_box_and_mask():
    from torchvision.transforms import v2

    flipped = {"augment": [v2.RandomHorizontalFlip(p=1.0)], "corner_noise": 0.0, "image_size": 128}
    data = dm.ObjectScenes(scenes=(1, 1, 1), **SMALL | flipped)
    data.setup("fit")
    sample = data.dataset("train")[0]
    found = (sample["mask"] == 1).nonzero()
    low, high = sample["box"].view(2, 2).sort(0).values
    assert low.tolist() == found.amin(0).tolist()
    assert high.tolist() == found.amax(0).tolist()


def write_clicks(folder, entries):
    path = folder / "clicks.json"
    path.write_text(json.dumps(entries))
    return str(path)


CLICK = {"y": 12, "x": 25, "positive": True}


@pytest.mark.parametrize("crop_kind", ["box", "random"])
def test_clicks_of_ones_own(tmp_path, crop_kind):
    files.write_image(tmp_path / "a.png", 0)
    files.write_image(tmp_path / "b.png", 1)
    entries = [
        {"image": "a.png", "clicks": [CLICK, {"y": 0, "x": 0, "positive": False}]},
        {"image": "b.png", "box": [30, 20, 10, 40], "clicks": []},
    ]
    data = dm.ObjectScenes(predict_clicks=write_clicks(tmp_path, entries), crop=crop_kind, **SMALL)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["labels"].tolist() == [[1, 0], [-1, -1]]
    assert batch["box"].isnan().all(1).tolist() == [True, False]
    assert batch["size"].tolist() == [[40, 60]] * 2
    assert batch["path"] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    if crop_kind == "random":
        assert batch["image"].shape == (2, 3, 40, 60)
        assert batch["points"][0].tolist() == [[12, 25], [0, 0]]
    else:
        assert batch["image"].shape == (2, 3, 32, 32)
        assert batch["region"][0].tolist() == [-10, 0, 60, 60]
        assert ((batch["points"][0] >= -0.5) & (batch["points"][0] < 32)).all()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "names no image"),
        ([{"clicks": [CLICK]}], "entry 0 has no image"),
        ([{"image": "a.png"}], "a.png: neither clicks nor a box"),
        ([{"image": "a.png", "clicks": [{"y": 1}]}], "a click is"),
        ([{"image": "a.png", "clicks": [{"y": 1, "x": 2, "positive": 1}]}], "a click is"),
        ([{"image": "a.png", "box": [1, 2]}], "a box is"),
        ([{"image": "a.png", "points": []}], "unknown key 'points'"),
        ([{"image": "a.png", "clicks": [{**CLICK, "y": 40}]}], "a.png: the click at y=40, x=25 is outside"),
        ([{"image": "a.png", "clicks": [{**CLICK, "y": -3}]}], "a.png: the click at y=-3, x=25 is outside"),
        ([{"image": "a.png", "clicks": [{**CLICK, "y": math.nan}]}], "a.png: the click at y=nan, x=25 is outside"),
        ([{"image": "a.png", "box": [math.nan] * 4}], r"a.png: the box \[nan, nan, nan, nan\] is outside"),
        (
            [{"image": "a.png", "box": [5, 5, 60, 60]}],
            r"a.png: the box \[5, 5, 60, 60\] is outside the image",
        ),
        ([{"image": "none.png", "clicks": [CLICK]}], "none.png"),
    ],
)
def test_bad_clicks(tmp_path, entries, said):
    files.write_image(tmp_path / "a.png", 0)
    data = dm.ObjectScenes(predict_clicks=write_clicks(tmp_path, entries), **SMALL)
    with pytest.raises(az.InputError, match=said):
        data.setup("predict")
        list(data.predict_dataloader())


def first_batch(data):
    data.setup("test")
    return next(iter(data.test_dataloader()))


def test_bad_masks_name_the_file(tmp_path):
    root = files.write_folder(tmp_path, parts=("test",), images=1)
    mask = root / "test/masks/im0#0.png"
    data = dm.MaskFolder(str(root), **SMALL)
    files.write_mask(mask, files.blob(3, 4))
    with pytest.raises(az.InputError, match=r"im0#0.png has the value 1: expected 0 .* 128 .* 255"):
        first_batch(data)
    files.write_mask(mask, 0 * files.blob(3, 4))
    with pytest.raises(az.InputError, match=r"im0#0.png: the mask is empty"):
        first_batch(data)
    files.write_mask(mask, 255 * files.blob(3, 4, size=(40, 61)))
    with pytest.raises(az.InputError, match=r"im0#0.png: the image has 60 x 40 pixels, its mask 61 x 40"):
        first_batch(data)
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(az.InputError, match=r"im0#0.png"):
        first_batch(data)


def test_missing_pairs_name_the_file(tmp_path):
    root = files.write_folder(tmp_path, parts=("test",), images=2)
    (root / "test/images/im1.jpg").rename(root / "test/images/im2.jpg")
    with pytest.raises(az.InputError, match=r"mask .*im1#0.png has no image"):
        first_batch(dm.MaskFolder(str(root), **SMALL))
    for number in range(2):
        (root / f"test/masks/im1#{number}.png").unlink()
    with pytest.raises(az.InputError, match=r"1 of 2 images have no mask, the first of them .*im2.jpg"):
        first_batch(dm.MaskFolder(str(root), **SMALL))
    Image.new("RGB", (60, 40)).save(root / "test/images/im0.png")
    with pytest.raises(az.InputError, match="two images for the same masks"):
        first_batch(dm.MaskFolder(str(root), **SMALL))


def test_missing_data_say_what_was_expected(tmp_path):
    with pytest.raises(az.InputError, match="boundary_GT|data_GT"):
        dm.GrabCut(str(tmp_path), **SMALL).setup("test")
    with pytest.raises(az.InputError, match=r"unknown part of GrabCut 'train'"):
        dm.GrabCut(str(tmp_path), **SMALL).setup("fit")
    with pytest.raises(az.InputError, match=r"val.txt"):
        dm.SBD(str(tmp_path), **SMALL).setup("test")
    with pytest.raises(az.InputError, match=r"lvis_val.json"):
        dm.LVIS(str(tmp_path), **SMALL).setup("test")
    root = files.write_sbd(tmp_path / "sbd")
    (root / "inst/s3.mat").write_bytes(b"none")
    with pytest.raises(az.InputError, match=r"s3.mat"):
        dm.SBD(str(root), **SMALL).setup("test")
    root = files.write_camvid(tmp_path / "camvid")
    with pytest.raises(az.InputError, match="no object of at least 5000 pixels"):
        dm.CamVidObjects(str(root), min_area=5000, **SMALL).setup("test")
    with pytest.raises(az.InputError, match=r"unknown class 'lorry'"):
        dm.CamVidObjects(str(root), classes=("lorry",), **SMALL)
    (tmp_path / "lvis/val").mkdir(parents=True)
    (tmp_path / "lvis/val/lvis_val.json").write_text("{}")
    with pytest.raises(az.InputError, match=r"lvis_val.json is not in the JSON format of COCO"):
        dm.LVIS(str(tmp_path / "lvis"), **SMALL).setup("test")


def test_arguments_out_of_range():
    for bad in ({"trials": 0}, {"padding": -1.0}, {"corner_noise": 0.5}, {"scale": (2.0, 1.0)}, {"classes": 1}):
        with pytest.raises(az.InputError, match=next(iter(bad))):
            dm.ObjectScenes(**bad)
    with pytest.raises(az.InputError, match="predict_clicks"):
        dm.ObjectScenes().setup("predict")
