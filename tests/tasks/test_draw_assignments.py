"""Pictures of assignments: which images are drawn, where, and in which colours."""

import pytest
import torch
from PIL import Image

from attention_zoo.analysis import overlay
from attention_zoo.analysis.assignments import NO_LABEL, Scene, assignment_sheet, assignments
from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder import MaskOutputs, MaskPrediction
from tasks import DrawAssignments


class FakeModel:
    """A mask transformer whose backbone pads to 32 pixels; every pixel belongs to the query of its row."""

    def covered(self, size):
        return tuple(-(-side // 32) * 32 for side in size)


class FakeTask:
    model = FakeModel()

    def __call__(self, image):
        rows, columns = (side // 8 for side in self.model.covered(image.shape[2:]))
        masks = torch.eye(rows)[None, :, :, None].expand(len(image), -1, -1, columns)
        return MaskOutputs((), MaskPrediction(torch.zeros(len(image), rows, 3), masks, masks))

    def classes_at(self, outputs, image, size):
        return torch.zeros(len(image), *size, dtype=torch.int64)


class FakeTrainer:
    is_global_zero = True
    num_val_batches = [5]

    def __init__(self, folder):
        self.default_root_dir = folder
        self.datamodule = type("Data", (), {"mean": (0.5,) * 3, "std": (0.5,) * 3})()


def batch(number):
    mask = torch.full((2, 40, 48), number)
    mask[:, :4] = 255
    return {"image": torch.full((2, 3, 40, 48), number / 10), "mask": mask}


def test_images_are_spread_over_the_batches_and_cut_to_their_size(tmp_path):
    draw, trainer, task = DrawAssignments(images=3), FakeTrainer(tmp_path), FakeTask()
    for number in range(5):
        draw.on_validation_batch_end(trainer, task, None, batch(number), number)
    scenes = draw._scenes
    assert [int(scene.label.max()) for scene in scenes] == [0, 1, 3]
    assert [int(scene.image[0, 0, 0]) for scene in scenes] == [128, 140, 166]
    for scene in scenes:
        assert (scene.label[:4] == NO_LABEL).all()
        (layer,) = scene.layers
        assert torch.equal(layer, torch.arange(5).repeat_interleave(8)[:, None].expand(40, 48))
    draw.on_validation_epoch_end(trainer, task)
    with Image.open(tmp_path / "assignments" / "assignments_val.png") as sheet:
        assert sheet.height > sheet.width / 2  # three rows of four tiles
    assert draw._scenes == []


def test_pictures_are_not_drawn_through_links(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    draw, trainer, task = DrawAssignments(images=1), FakeTrainer(tmp_path / "run"), FakeTask()
    (tmp_path / "run" / "assignments").mkdir(parents=True)
    picture = tmp_path / "run" / "assignments" / "assignments_val.png"
    picture.symlink_to(precious)
    draw.on_validation_batch_end(trainer, task, None, batch(0), 4)
    draw.on_validation_epoch_end(trainer, task)
    assert precious.read_text() == "precious" and not picture.is_symlink()
    picture.parent.rename(tmp_path / "moved")
    picture.parent.symlink_to(tmp_path / "moved")
    draw.on_validation_batch_end(trainer, task, None, batch(0), 4)
    with pytest.raises(InputError, match="assignments is a link"):
        draw.on_validation_epoch_end(trainer, task)


def test_assignments_are_the_largest_masks():
    masks = torch.randn(2, 5, 4, 6)
    outputs = MaskOutputs((), MaskPrediction(torch.zeros(2, 5, 3), masks, masks))
    (found,) = assignments(outputs)
    assert torch.equal(masks.gather(1, found[:, None])[:, 0], masks.amax(1))


def test_a_column_for_each_layer():
    layer = torch.zeros(4, 4, dtype=torch.int64)
    scene = Scene(torch.zeros(3, 8, 8, dtype=torch.uint8), [layer] * 3, layer, layer)
    figure = assignment_sheet([scene])
    assert [text.get_text() for text in figure.texts if text.get_text()] == [
        "image",
        "layer 1",
        "layer 2",
        "final",
        "classes",
        "label",
    ]


def test_pixels_without_a_label_stay_grey():
    image = torch.rand(3, 4, 4)
    labels = torch.tensor([[0, NO_LABEL], [3, NO_LABEL]])
    drawn = overlay(image, labels)
    grey = drawn[:, 2:]
    assert torch.equal(grey[..., :1].expand(-1, -1, 3), grey)
    assert not torch.equal(drawn[..., 0], drawn[..., 2])


def test_other_tasks_are_refused(tmp_path):
    with pytest.raises(InputError, match="not FakeTask"):
        DrawAssignments().setup(FakeTrainer(tmp_path), FakeTask(), "fit")
    with pytest.raises(InputError, match="images=0"):
        DrawAssignments(images=0)
