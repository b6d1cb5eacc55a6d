"""Square Attack: what it does without gradients, and that every image has draws of its own."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.attacks import PGD, Square
from attention_zoo.attacks.square import PIECE, Draws, _windows

EPS = 0.05


@pytest.fixture(scope="module")
def linear():
    """A linear classifier and images that it gets right by a margin that the ball can undo."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 192, generator=generator)
    pixels = torch.rand(40, 3, 8, 8, generator=generator)
    return lambda images: images.flatten(1) @ weight.T, pixels, (pixels.flatten(1) @ weight.T).argmax(1)


def accuracy(model, pixels, label):
    return (model(pixels).argmax(1) == label).double().mean().item()


def test_more_queries_find_more(linear):
    model, pixels, label = linear
    left = [accuracy(model, Square(EPS, queries)(model, pixels, label), label) for queries in (1, 20, 400)]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[2]


def test_it_finds_what_hidden_gradients_hide(linear):
    model, pixels, label = linear

    def hiding(images):
        return model((images * 255 * 4).round() / 255 / 4)

    assert accuracy(hiding, PGD(EPS, EPS / 4, 10)(hiding, pixels, label), label) == 1
    assert accuracy(hiding, Square(EPS, 400)(hiding, pixels, label), label) < 0.8


def test_no_pixel_leaves_the_ball_or_the_range(linear):
    model, pixels, label = linear
    pixels = (2 * pixels - 0.5).clamp(0, 1)
    attacked = Square(EPS, 60)(model, pixels, model(pixels).argmax(1))
    assert (attacked - pixels).abs().max() <= EPS + 1e-7
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert (attacked != pixels).any()


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [2]])
def test_what_happens_to_an_image_does_not_depend_on_its_batch(linear, order):
    model, pixels, label = linear
    index = torch.tensor([40, 2, 7, 9])
    together = Square(EPS, 50)(model, pixels[:4], label[:4], index)
    some = Square(EPS, 50)(model, pixels[order], label[order], index[order])
    assert_close(some, together[order], rtol=0, atol=1e-7)
    other = Square(EPS, 50, seed=1)(model, pixels[:4], label[:4], index)
    assert (other - together).abs().max() > EPS


def test_images_that_gave_in_draw_no_more_and_the_others_the_same(linear):
    _, pixels, _ = linear
    together, fewer = (Draws([5, 6, 7], pixels[:3]) for _ in range(2))
    assert torch.equal(together.stripes(8), fewer.stripes(8))
    everyone, last = torch.arange(3), torch.tensor([2])
    seen = []
    for number in range(2 * PIECE + 1):
        places, signs = together.square(number, everyone)
        alone = fewer.square(number, last if number > 3 else everyone)
        assert torch.equal(alone[0][-1], places[2])
        assert torch.equal(alone[1][-1], signs[2])
        seen.append(places)
    assert len(torch.stack(seen).flatten(0, 1).unique(dim=0)) == 3 * (2 * PIECE + 1)
    assert together._places.shape == (3, PIECE, 2)  # whatever the number of queries


def test_the_sides_fall_as_autoattacks_do():
    package = pytest.importorskip("pyautoattack")
    attack = Square(queries=5000)
    theirs = package.square.SquareAttack(None, p_init=0.8, n_queries=5000, resc_schedule=True)
    pixels = torch.zeros(1, 3, 32, 32)
    for query in (1, 4, 6, 24, 26, 99, 101, 260, 600, 1200, 2400, 3500, 4500):
        expected = max(round((theirs.p_selection(query) * 32 * 32) ** 0.5), 1)
        assert attack._side(query, pixels) == expected
    assert attack._side(1, torch.zeros(1, 3, 4, 40)) == 4


def test_it_is_as_strong_as_its_authors():
    package = pytest.importorskip("pyautoattack")
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(32, 192, generator=generator) / 8, torch.randn(10, 32, generator=generator)
    pixels = torch.rand(200, 3, 8, 8, generator=generator)

    def model(images):
        return torch.relu(images.flatten(1) @ first.T - 0.2) @ second.T

    label = model(pixels).argmax(1)
    options = {"norm": "Linf", "n_queries": 100, "eps": 0.1, "p_init": 0.8, "device": "cpu"}
    theirs = [package.square.SquareAttack(model, seed=seed, **options).perturb(pixels, label) for seed in range(6)]
    left = [accuracy(model, attacked, label) for attacked in theirs]  # by a tenth apart: all images share their draws
    ours = accuracy(model, Square(0.1, 100)(model, pixels, label), label)
    assert 0.3 < ours < 0.9
    assert ours == pytest.approx(sum(left) / len(left), abs=0.06)


def test_squares_lie_everywhere():
    places = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    chosen = _windows(places, 2, torch.zeros(4000, 3, 4, 5))
    assert (chosen.sum((1, 2)) == 4).all()
    corners = chosen[:, [0, 0, -1, -1], [0, -1, 0, -1]].double().mean(0)
    assert_close(corners, torch.full((4,), 1 / 12).double(), atol=0.02, rtol=0)


def test_it_asks_the_model_no_more_than_it_must(linear):
    model, pixels, label = linear
    asked = []

    def counting(images):
        asked.append(len(images))
        return model(images)

    label = label.clone()
    label[:10] = (label[:10] + 1) % 4  # wrong already
    told = []
    found = Square(EPS, 30).run(counting, pixels, label, report=told.append)
    assert torch.equal(found.pixels[:10], pixels[:10])
    assert found.no_gradient is None
    assert asked[0] == 40
    assert asked[1] == 30
    assert asked == sorted(asked, reverse=True)
    assert len(asked) <= 31
    assert told[1] == "Square: pass 2 of 31 over 30 images"
    asked.clear()
    Square(EPS, 30)(counting, pixels[:10], label[:10])
    assert asked == [10]


def test_it_needs_no_gradient(linear):
    model, pixels, label = linear
    seen = []

    def watching(images):
        seen.append(torch.is_grad_enabled())
        return model(images)

    with torch.inference_mode():
        Square(EPS, 3)(watching, pixels, label)
    assert not any(seen)


def test_ties_are_attacked():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    nn.init.zeros_(flat[1].weight)
    nn.init.zeros_(flat[1].bias)
    pixels = torch.rand(2, 3, 4, 4)
    attacked = Square(EPS, 5)(flat, pixels, torch.tensor([0, 2]))  # all logits tie: the first class is the answer
    assert (attacked[0] != pixels[0]).any()
    assert torch.equal(attacked[1], pixels[1])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Square(eps="4/0"), "eps=4/0"),
        (lambda: Square(queries=0), "queries=0 must be at least 1"),
        (lambda: Square(first_square=0), "first_square=0 must be above 0 and at most 1"),
        (lambda: Square(images=0), "images=0 must be at least 1"),
        (lambda: Square(seed=-1), "seed=-1"),
    ],
)
def test_bad_input(build, said):
    with pytest.raises(az.InputError, match=said):
        build()


def test_settings():
    assert Square("4/255", 300, images=100).settings == {
        "attack": "Square",
        "eps": "4/255",
        "queries": 300,
        "first_square": 0.8,
        "seed": 0,
        "norm": "Linf",
    }
    assert Square("4/255").ball == PGD("4/255").ball != PGD("4/255", norm="L2").ball
