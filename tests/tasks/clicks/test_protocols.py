"""Evaluation of models whose result is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import attention_zoo as az
from attention_zoo.clicks import Clicks
from tasks.clicks import next_click, number_of_clicks
from tasks.clicks.protocols import PROTOCOLS, asking, protocol_of
from tasks.clicks.session import click_seeds, iou, simulate
from tasks.clicks.views import Window, ZoomIn
from tests.tasks.toy_clickers import Constant, HeadOnly, Oracle, Painter, Remembering

PAPER = PROTOCOLS["paper"]
RITM = PROTOCOLS["ritm"]


def objects(count=3, size=(48, 64)):
    """Images that are 1 on a rectangle, their masks with a few ignored pixels, and boxes."""
    mask = torch.zeros(count, *size, dtype=torch.uint8)
    for number in range(count):
        mask[number, 8 + 2 * number : 30, 10 : 40 + 3 * number] = 1
        mask[number, 40:44, 5:9] = 255
    image = (mask == 1).float()[:, None].repeat(1, 3, 1, 1)
    box = torch.tensor([[8.0 + 2 * number, 10, 29, 39 + 3 * number] for number in range(count)])
    return image, mask, box


def run(model, protocol, count=3):
    image, mask, box = objects(count)
    ask = asking(model, image, box if protocol.box else None, protocol, {})
    return simulate(ask, mask, protocol, click_seeds(0, range(count)))


@pytest.mark.parametrize("protocol", [PAPER, RITM, replace(RITM, zoom_in=None)])
def test_an_oracle_takes_one_click_and_a_constant_twenty(protocol):
    oracle, constant = run(Oracle(), protocol), run(Constant(), protocol)
    for threshold in (0.8, 0.85, 0.9):
        assert number_of_clicks(oracle.ious[:, 1:], threshold).tolist() == [1, 1, 1]
        assert number_of_clicks(constant.ious[:, 1:], threshold).tolist() == [20, 20, 20]
    assert oracle.ious.shape == (3, 21)
    assert oracle.made.tolist() == [0 if protocol.box else 1] * 3
    assert constant.made.tolist() == [20] * 3
    assert oracle.ious[:, 0].tolist() == [1.0 if protocol.box else 0.0] * 3


@pytest.mark.parametrize("protocol", [PAPER, RITM])
def test_clicks_correct_a_mask(protocol):
    image, mask, box = objects()
    initial = (mask == 1).to(torch.uint8)
    initial[1, :14] = 0
    asked = []

    def ask(clicks, previous):
        asked.append(previous)
        return torch.zeros_like(previous)

    session = simulate(ask, mask, replace(protocol, clicks=2), click_seeds(0, range(3)), initial)
    assert torch.equal(asked[0][:, 0], initial.float())
    assert session.ious[[0, 2]].tolist() == [[1.0] * 3] * 2  # right from the start: no click
    assert 0 < session.ious[1, 0] < 1
    assert session.history[0] == []
    y, x, positive = session.history[1][0]
    assert positive and y < 14


def test_ritm_by_hand():
    """Against the protocol written out for one image, without flip and zoom."""
    protocol = replace(RITM, flip=False, zoom_in=None, clicks=6)
    image, mask, _ = objects(1)
    session = run(Painter(), protocol, 1)
    target, ignore = mask[0] == 1, mask[0] == 255
    prediction, clicks, made = torch.zeros(48, 64, dtype=torch.bool), Clicks.empty(1), []
    for number in range(6):
        y, x, positive = next_click(prediction, target, ignore=ignore, clicks=made)
        made.append((y, x, positive))
        clicks = clicks.append(torch.tensor([[float(y), x]]), torch.tensor([int(positive)]))
        prediction = Painter().logits(image, None, None, clicks)[0, 0].sigmoid() > 0.49
        assert session.ious[0, number + 1] == iou(prediction[None], target[None], ignore[None])
    assert session.history == [made]
    assert made[0][2]
    assert torch.equal(session.prediction[0], prediction)


@pytest.mark.parametrize("protocol", [PAPER, replace(RITM, zoom_in=None), RITM])
def test_a_batch_gives_what_its_images_give_alone(protocol):
    image, mask, box = objects()
    together = run(Painter(), protocol)
    seeds = click_seeds(0, range(3))
    for place in range(3):
        given = box[place : place + 1] if protocol.box else None
        ask = asking(Painter(), image[place : place + 1], given, protocol, {})
        alone = simulate(ask, mask[place : place + 1], protocol, seeds[place : place + 1])
        assert torch.equal(together.ious[place], alone.ious[0])
        assert together.history[place] == alone.history[0]


def test_more_clicks_make_better_masks():
    curve = run(Painter(), PAPER).ious.mean(0)
    assert curve[20] > curve[5] > curve[1] > curve[0] == 0


def test_features_are_encoded_once_where_clicks_do_not_enter():
    seen, head = Painter(), HeadOnly()
    assert torch.equal(run(seen, PAPER).ious, run(head, PAPER).ious)
    assert (seen.encoded, seen.decoded) == (21, 21)
    assert (head.encoded, head.decoded) == (1, 21)


def test_flip_averages_the_mirror_image():
    class Sided(Oracle):
        def logits(self, image, box, previous, clicks, **adaptation):
            return image[:, :1] + torch.linspace(0, 1, image.shape[-1])

    image, _, box = objects(2)
    previous = torch.zeros(2, 1, 48, 64)
    flipped = asking(Sided(), image, box, replace(PAPER, flip=True), {})(Clicks.empty(2), previous)
    torch.testing.assert_close(flipped, (image[:, :1] + 0.5).sigmoid())


def test_flip_moves_clicks_box_and_previous_mask():
    class Recording(Constant):
        def encode(self, image, clicks, box=None, previous=None):
            self.seen = image, clicks, box, previous
            return super().encode(image, clicks, box, previous)

    model, (image, _, box) = Recording(), objects(1)
    clicks = Clicks(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1]]))
    previous = torch.rand(1, 1, 48, 64)
    asking(model, image, box, replace(PAPER, flip=True), {})(clicks, previous)
    images, points, boxes, masks = model.seen
    assert torch.equal(images[1], image[0].flip(-1))
    assert points.points[1].tolist() == [[3, 59]]
    assert boxes[1].tolist() == [8, 53, 29, 24]
    assert torch.equal(masks[1], previous[0].flip(-1))


def test_the_previous_mask_is_handed_on():
    curve = run(Remembering(), replace(RITM, flip=False, zoom_in=None)).ious.mean(0)
    assert curve[8] > curve[1] > 0


def test_a_window_of_ritm():
    mask = torch.zeros(400, 600, dtype=torch.bool)
    mask[100:301, 300:401] = True
    window = Window.around(mask, 1.4, 200)
    assert tuple(window) == (59, 341, 250, 450)  # rows 1.4 x 201, columns at least 200
    assert Window.around(mask, 3.0, 200) == (0, 399, 198, 502)
    assert window.holds(torch.tensor([[59.0, 250.0], [340.0, 449.0]]))
    assert not window.holds(torch.tensor([[341.0, 300.0]]))
    assert window.overlap(window) == 1
    assert window.overlap(Window((59, 341, 451, 500))) == 0


def test_zoom_starts_with_the_second_click_and_enlarges():
    class Sizes(Oracle):
        def encode(self, image, clicks, box=None, previous=None):
            self.sizes = [*getattr(self, "sizes", []), tuple(image.shape[-2:])]
            self.clicks = clicks
            return super().encode(image, clicks, box, previous)

    image = torch.zeros(1, 3, 300, 500)
    image[..., 100:200, 200:320] = 1
    model = Sizes()
    ask = ZoomIn(model, image, None, size=400, flip=False, adaptation={})
    first = Clicks(torch.tensor([[[150.0, 260.0]]]), torch.tensor([[1]]))
    probability = ask(first, torch.zeros(1, 1, 300, 500))
    second = first.append(torch.tensor([[120.0, 210.0]]), torch.tensor([0]))
    again = ask(second, probability)
    assert model.sizes == [(300, 500), (400, 400)]  # 200 rows (the least) and 1.4 x 120 columns, so 200: both to 400
    assert torch.equal(again > 0.5, probability > 0.5)
    window = ask.window
    scale = 400 / window.height
    expected = [(150 - window[0]) * scale, (260 - window[2]) * 400 / window.width]
    assert model.clicks.points[0, 0].tolist() == pytest.approx(expected)
    outside = again[0, 0].clone()
    window.cut(outside).fill_(0)
    assert outside.sum() == 0


def test_random_clicks_depend_on_run_and_sample_only():
    assert click_seeds(0, [3, 4]) == [click_seeds(0, [3])[0], click_seeds(0, [4])[0]]
    assert click_seeds(0, [3]) != click_seeds(1, [3])
    assert run(Painter(), PAPER).history == run(Painter(), PAPER).history


def test_iou_leaves_out_what_is_ignored():
    prediction = torch.tensor([[[True, True, False, False]]])
    target = torch.tensor([[[True, False, True, False]]])
    ignore = torch.tensor([[[False, True, False, False]]])
    assert iou(prediction, target, ignore).tolist() == [0.5]
    assert np.isclose(iou(prediction, target, ~ignore), 0.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"clicks": value}, "clicks") for value in (0, -1, 10**20)),
        *(({"threshold": value}, "threshold") for value in (math.nan, -0.1, 1.0, math.inf)),
        *(({"zoom_in": value}, "zoom_in") for value in (0, -4, 10**20)),
        ({"strategy": "centre"}, "center, random"),
    ],
)
def test_protocols_out_of_range(options, said):
    with pytest.raises(az.InputError, match=said):
        replace(RITM, **options)


def test_a_protocol_of_a_name():
    assert protocol_of("ritm", 5, 0) == replace(RITM, clicks=5, zoom_in=None)
    assert protocol_of("ritm", None, 300).zoom_in == 300
    assert protocol_of("paper", zoom_size=300) == PAPER  # which does not zoom
    with pytest.raises(az.InputError, match="paper, ritm"):
        protocol_of("f-brs")


def test_a_narrow_image_is_zoomed_into():
    """Of a window much longer than wide the shorter side stays a pixel."""
    image, mask = torch.ones(1, 3, 2, 300), torch.ones(1, 2, 300, dtype=torch.uint8)
    session = simulate(asking(Painter(), image, None, replace(RITM, clicks=4, zoom_in=20), {}), mask, RITM, [0])
    assert session.ious.shape == (1, 21)
