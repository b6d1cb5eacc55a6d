"""Masks for a person's clicks: repeated, taken back, on a mask that exists, and the same whatever came in between."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import attention_zoo as az
from attention_zoo.clicks import Box, Click, ClickedImage
from attention_zoo.models.interactive import CorrectiveAttention
from attention_zoo.run_lengths import RunLengths
from datamodules.interactive.crops import Viewing
from datamodules.interactive.predict import ClickCollate, clicked
from tasks import Curriculum, InteractiveSegmentation, Setting
from tasks.clicks.answers import ClickAnswers, part, whole
from tasks.clicks.merge import progressive_merge

VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}
SIZE = (40, 60)
IMAGE = torch.randint(256, (3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CLICKS = (Click(20, 30, True), Click(5, 50, False), Click(30, 20, True), Click(8, 8, False))


def head(in_channels):
    mixer = partial(az.create_mixer, "Probabilistic", beta=0.1, value_propagation=1)
    return CorrectiveAttention(in_channels, dim=8, attention="full", stride=2, mixer=mixer)


def task_of(**options):
    torch.manual_seed(0)
    mixer = partial(az.create_mixer, "Probabilistic")
    given = {"image_size": (32, 32), "model_args": VIT, "mixer": mixer, "head": head} | options
    task = InteractiveSegmentation("vit_tiny_patch16_224", **given).eval()
    for module in (task.model.head.width.q, task.model.head.width.k, task.model.head.width.v):
        torch.nn.init.normal_(module.weight, std=2.0)
    stem = task.model.backbone.get_submodule("model.patch_embed.proj").weight
    torch.nn.init.normal_(stem.data[:, 3:])  # the channels of the clicks
    kept = ClickAnswers(task)
    kept.mask(view(IMAGE, annotated(*CLICKS)), Setting(value_propagation=0))
    last = [step.probability for step in kept._steps.values()][-1]
    middle = last[last > 0].median().item()  # about as many pixels on the object as beside it
    task.protocol = replace(task.protocol, threshold=middle)
    return task


RITM = {"guidance": "ritm", "protocol": "ritm", "zoom_size": 24, "curriculum": Curriculum(0, 1)}
KINDS = {"paper": {}, "head": {"clicks_in": "head"}, "ritm": RITM}


@pytest.fixture(params=KINDS)
def task(request):
    return task_of(**KINDS[request.param])


@pytest.fixture
def image():
    return IMAGE


def view(image, annotation, viewing=None):
    return ClickCollate(lambda images: images.float() / 255 - 0.5)([clicked(image, annotation, viewing)])


def annotated(*clicks, **more):
    return ClickedImage("a.png", clicks, **more)


def different(masks):
    return len({mask.numpy().tobytes() for mask in masks})


def test_undo_redo_and_another_object_change_no_answer(task, image):
    setting = Setting(value_propagation=3)
    fresh = [ClickAnswers(task).mask(view(image, annotated(*CLICKS[:n])), setting) for n in (1, 2, 3, 4)]
    assert different(fresh) > 1
    answers = ClickAnswers(task)
    other = annotated(*CLICKS[::-1])
    for count in (1, 2, 3, 2, 4, 1, 3):
        assert torch.equal(answers.mask(view(image, annotated(*CLICKS[:count])), setting), fresh[count - 1])
        answers.mask(view(image, other), setting)


def test_what_was_answered_is_not_asked_again(task, image, monkeypatch):
    asked = []
    decode = task.model.decode
    monkeypatch.setattr(task.model, "decode", lambda *a, **k: asked.append(1) or decode(*a, **k))
    answers = ClickAnswers(task)
    for count in (1, 2, 3, 2, 3, 1):
        answers.mask(view(image, annotated(*CLICKS[:count])), Setting())
    assert len(asked) == 3


@pytest.mark.parametrize(("clicks_in", "runs"), [("head", 2), ("encoder", 9)])
def test_the_encoder_runs_once_a_view_where_no_click_enters_it(image, monkeypatch, clicks_in, runs):
    """Three clicks under two settings of the head, and once for other keys of the backbone."""
    task = task_of(clicks_in=clicks_in)
    encoded = []
    encode = task.model.encode
    monkeypatch.setattr(task.model, "encode", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    answers = ClickAnswers(task)
    settings = [Setting(value_propagation=0), Setting(1, 1.0, 3, 1.0, "head"), Setting(1, 1.0, 3, 1.0, "backbone")]
    masks = [answers.mask(view(image, annotated(*CLICKS[:n])), each) for each in settings for n in (1, 2, 3)]
    assert len(encoded) == runs
    assert different(masks) > 3


def test_a_prediction_does_not_depend_on_its_batch(task, image):
    entries = [annotated(*CLICKS), annotated(CLICKS[0]), annotated(*CLICKS[:2], setting={"value_propagation": 2})]
    batch = ClickCollate(lambda images: images.float() / 255 - 0.5)([clicked(image, each, None) for each in entries])
    with torch.no_grad():
        masks = task.predict_step(batch, 0)
    for mask, entry in zip(masks, entries, strict=True):
        setting = Setting() if entry.setting is None else Setting.parse(entry.setting)
        assert torch.equal(mask.bool(), ClickAnswers(task).mask(view(image, entry), setting))


def test_a_click_is_honoured_where_values_propagate(image):
    """Against the model, to which every pixel is above the threshold."""
    task = task_of()
    clicks = (Click(10.4, 12, True), Click(10.4, 12, False), Click(39, 59, False))
    entry = view(image, annotated(*clicks, threshold=0.0))
    assert ClickAnswers(task).mask(entry, Setting(value_propagation=0)).all()
    for setting in (Setting(), Setting(value_propagation=3)):
        mask = ClickAnswers(task).mask(entry, setting)
        assert not mask[10, 12] and not mask[39, 59] and int((~mask).sum()) == 2


def test_a_box_moves_the_view_and_all_clicks_with_it(image):
    task, viewing = task_of(), Viewing((32, 32), 0.25, 0.0, (0, 0, 0))
    answers = ClickAnswers(task)
    near, far = (annotated(*clicks, box=Box(15, 25, 25, 35)) for clicks in (CLICKS[:1], CLICKS))
    views = [view(image, each, viewing) for each in (near, far, near)]
    assert not torch.equal(views[0]["region"], views[1]["region"])
    masks = [answers.mask(each, Setting()) for each in views]
    assert torch.equal(masks[0], masks[2])
    assert torch.equal(masks[1], ClickAnswers(task).mask(views[1], Setting()))
    boxed = answers.mask(view(image, annotated(box=near.box), viewing), Setting())
    assert boxed.shape == SIZE


def test_a_mask_that_exists_is_corrected_and_not_replaced(task, image):
    before = torch.zeros(SIZE, dtype=torch.bool)
    before[2:10, 2:20] = True
    given = {"mask": RunLengths.of(before)}
    assert torch.equal(ClickAnswers(task).mask(view(image, annotated(**given)), Setting()), before)
    setting = Setting(value_propagation=0)
    answers = ClickAnswers(task)
    mask = before
    for count in (1, 2, 3):
        after = answers.mask(view(image, annotated(*CLICKS[:count], **given)), setting)
        changed = after ^ mask
        click = CLICKS[count - 1]
        assert not changed.any() or (changed[int(click.y), int(click.x)] and (after[changed] == click.positive).any())
        mask = after
    if task.remembers:
        clicks, zeros = view(image, annotated(CLICKS[0], **given)), view(image, annotated(CLICKS[0]))
        known, unknown = (answers._probabilities(v, setting, ClickedImage.parse(v["annotation"][0]))[0]
                          for v in (clicks, zeros))  # fmt: skip
        assert not torch.equal(known, unknown)


def test_progressive_merge_changes_the_part_that_was_clicked():
    before = torch.zeros(8, 8, dtype=torch.bool)
    before[0:3, 0:3] = True
    answer = torch.zeros(8, 8, dtype=torch.bool)
    answer[5:7, 5:7] = True
    answer[2, 2] = True
    added = progressive_merge(before, answer, Click(5, 6, True))
    assert torch.equal(added, before | (answer & ~before))
    assert int(added.sum()) == 9 + 4
    removed = progressive_merge(before, answer, Click(0, 0, False))
    assert int(removed.sum()) == 1 and removed[2, 2]
    for click in (Click(0, 0, True), Click(7, 0, False), Click(2, 2, True), Click(5, 5, False)):
        assert torch.equal(progressive_merge(before, answer, click), before)


@pytest.mark.parametrize("click", [Click(1, 1, False), Click(1, 6, True)])
def test_progressive_merge_adds_or_takes_away(click):
    """The model moves an object to the right, which is one connected region of changes."""
    before, answer = torch.zeros(2, 4, 8, dtype=torch.bool)
    before[:4, :4] = answer[:4, 4:] = True
    merged = progressive_merge(before, answer, click)
    assert torch.equal(merged, before | answer if click.positive else torch.zeros_like(before))


@pytest.mark.parametrize("region", [(0, 0, 40, 60), (-4, -10, 64, 80), (5, 10, 20, 30), (-3, 20, 30, 60)])
def test_a_view_of_a_mask_is_what_whole_puts_back(region):
    mask = torch.zeros(SIZE)
    mask[12:20, 25:35] = 1.0
    seen = part(mask, region, region[2:])
    assert seen.shape == (1, *region[2:]) and seen.sum() == mask.sum()
    assert torch.equal(whole(seen, region, SIZE), mask)
    smaller = part(mask, region, (16, 16))
    assert smaller.shape == (1, 16, 16)
    assert smaller.mean() == pytest.approx(seen.mean().item(), abs=0.02)


def test_old_answers_are_dropped_and_made_again(image, monkeypatch):
    monkeypatch.setattr("tasks.clicks.answers.MOST_KEPT", 2 * 40 * 60)
    monkeypatch.setattr("tasks.clicks.answers.MOST_ASKS", 1)
    task = task_of(**RITM)
    answers = ClickAnswers(task)
    for count in (4, 2, 4):
        mask = answers.mask(view(image, annotated(*CLICKS[:count])), Setting())
        assert torch.equal(mask, ClickAnswers(task).mask(view(image, annotated(*CLICKS[:count])), Setting()))
    assert len(answers._steps) == 2 and len(answers._asks) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [({"key_adaption": 1}, "unknown option of setting 'key_adaption'.*adaptation"), ({"adapt_in": "x"}, "adapt_in")],
)
def test_a_setting_that_does_not_exist_is_refused(content, said):
    with pytest.raises(az.InputError, match=said):
        Setting.parse(content)
