"""The corrective self-attention head."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.clicks import Clicks
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.models.interactive import ConvHead, CorrectiveAttention
from attention_zoo.models.interactive.units import ClickedUnits
from tests.mixers import costly
from tests.reference import naive_em

SIZE = (12, 16)
GRID = (6, 8)
BETA, THETA = 0.3, 0.05
SELF = az.list_mixers("self")
ALPHA = 4**-0.5
both_kinds = pytest.mark.parametrize("attention", ["axial", "full"])


def build(attention="axial", propagation=2, seed=0, **options):
    torch.manual_seed(seed)
    mixer = partial(Probabilistic, beta=BETA, value_propagation=propagation, value_prior_precision=THETA)
    options = {"dim": 8, "num_heads": 2, "stride": 2, "mixer": mixer, **options}
    return CorrectiveAttention(5, attention=attention, **options).double().eval()


def features(batch=2, seed=1):
    return torch.randn(batch, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def clicks(*images):
    """From lists of (y, x, label), padded."""
    longest = max(map(len, images))
    rows = [list(image) + [(0, 0, -1)] * (longest - len(image)) for image in images]
    table = torch.tensor(rows, dtype=torch.float32).view(len(images), longest, 3)
    return Clicks(table[..., :2], table[..., 2].long())


SOME = clicks([(3, 5, 1), (9, 15, 0), (8, 1, 1)], [(0, 0, 0)])


def moved(head, first, second=None):
    """Largest difference between the logits under two sets of clicks."""
    second = Clicks.empty(2) if second is None else second
    return (head(features(), first, SIZE) - head(features(), second, SIZE)).abs().max().item()


class TestUnits:
    def test_pixels_fall_on_the_unit_that_covers_them(self):
        units = ClickedUnits.of(clicks([(0, 0, 1), (1, 1, 0), (2, 1, 1), (11, 15, 0)]), SIZE, GRID)
        assert units.index.tolist() == [[0, 0, 8, 47]]
        assert units.labels.tolist() == [[1, 0, 1, 0]]

    def test_the_last_click_on_a_unit_counts(self):
        units = ClickedUnits.of(clicks([(0, 0, 1), (1, 1, 0), (4, 4, 0), (4, 5, 1)]), SIZE, GRID)
        assert units.counted.tolist() == [[False, True, False, True]]
        planes = units.planes(48)[0]
        assert planes.nonzero().tolist() == [[0, 1], [2 * 8 + 2, 0]]

    def test_clicks_outside_and_padding_do_not_count(self):
        units = ClickedUnits.of(clicks([(-1, 3, 1), (3, 16, 0), (12, 0, 1), (2, 2, -1), (11.4, 15.4, 1)]), SIZE, GRID)
        assert units.counted.tolist() == [[False, False, False, False, True]]
        assert units.planes(48).sum() == 1

    @settings(max_examples=40, deadline=None)
    @given(size=st.tuples(*[st.integers(1, 40)] * 2), grid=st.tuples(*[st.integers(1, 40)] * 2), data=st.data())
    def test_any_pixel_has_a_unit_that_is_near(self, size, grid, data):
        y, x = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
        units = ClickedUnits.of(clicks([(y, x, 1)]), size, grid)
        row, column = divmod(units.index.item(), grid[1])
        assert abs((row + 0.5) * size[0] / grid[0] - (y + 0.5)) <= size[0] / grid[0] / 2 + 1e-6
        assert abs((column + 0.5) * size[1] / grid[1] - (x + 0.5)) <= size[1] / grid[1] / 2 + 1e-6


class TestAgainstTheDefinition:
    @both_kinds
    @pytest.mark.parametrize("propagate_in", ["width", "both"])
    @pytest.mark.parametrize("adaptation", [{}, {"key_adaptation": 1, "key_prior_precision": 0.2}], ids=["", "keys"])
    def test_equals_the_naive_reading_line_by_line(self, attention, propagate_in, adaptation):
        head = build(attention, propagate_in=propagate_in, context=None)
        az.set_adaptation(head, **adaptation)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
        x = torch.nn.functional.interpolate(head.bottleneck(features()), GRID, mode="bilinear")
        x = head.norm(x.movedim(1, -1))  # (B, rows, columns, dim)
        logits = naive_head(head, x, SOME, adaptation)
        expected = torch.nn.functional.interpolate(logits[:, None], SIZE, mode="bilinear")
        assert_close(head(features(), SOME, SIZE), expected)

    def test_a_local_context_reads_so_far(self):
        head = build(context=4, stride=1)
        x = torch.randn(1, 192, 8, dtype=torch.float64, requires_grad=True)
        units = ClickedUnits.of(Clicks.empty(1).padded(1), SIZE, SIZE)
        head.classify(x, units, SIZE)[0, 5 * 16 + 8, 1].backward()
        seen = x.grad[0].abs().sum(-1).view(SIZE) > 0
        assert seen[3:8, 6:11].all()
        seen[3:8, 6:11] = False
        assert not seen.any()


def naive_head(head, x, given, adaptation):
    """Logits (B, rows, columns) of normalised features by loops over samples, lines and clicks."""
    rows, columns = x.shape[1:3]
    planes, places = torch.zeros(*x.shape[:3], 2).double(), [{} for _ in x]
    for sample in range(len(x)):
        for (y, x_), label in zip(given.points[sample].tolist(), given.labels[sample].tolist(), strict=True):
            if label >= 0:
                places[sample][int(y // 2), int(x_ // 2)] = label
        for (row, column), label in places[sample].items():
            planes[sample, row, column, 1 - label] = 1
    table = head.fixed_logits.diag()[:, None].expand(2, 2, 2)
    if head.height is None:
        v = torch.cat((x, planes), -1).flatten(1, 2)
        found = [{row * columns + column: label for (row, column), label in places_.items()} for places_ in places]
        out = naive_lines(head.width, x.flatten(1, 2), v, found, table, adaptation).unflatten(1, (rows, columns))
    else:
        seen = torch.empty_like(x)
        for column in range(columns):
            found = [{r: label for (r, c), label in p.items() if c == column} for p in places]
            v = torch.cat((x, planes), -1)[:, :, column]
            spread = head.fixed_values
            mixed = naive_lines(head.height, x[:, :, column], v, found, spread, adaptation)
            seen[:, :, column] = mixed.flatten(2)
        out = torch.empty(*x.shape[:3], 2, 2).double()
        for row in range(rows):
            found = [{c: label for (r, c), label in p.items() if r == row} for p in places]
            v = torch.cat((x, seen, planes), -1)[:, row]
            out[:, row] = naive_lines(head.width, x[:, row], v, found, table, adaptation)
    return (out[..., 1] - out[..., 0]).mean(-1)


def naive_lines(projections, x, more, found, table, adaptation):
    """A line (B, L, dim) of two heads to (B, L, heads, E), with what was clicked in each sample {place: label}."""
    q, k, v = (
        part.unflatten(-1, (2, -1)).transpose(1, 2)
        for part in (projections.q(x), projections.k(x), projections.v(more))
    )
    args = {"alpha": ALPHA, "beta": BETA}
    # the magnitude prior of the values is a part of the mixture that the keys adapt in
    k = naive_em.adapt_keys(
        q,
        k,
        v=v,
        prior_precision=adaptation.get("key_prior_precision", 0),
        iterations=adaptation.get("key_adaptation", 0),
        **args,
    )
    mixed = []
    for sample, clicked in enumerate(found):
        one = [part[sample : sample + 1] for part in (q, k, v)]
        if clicked and table is not None:
            values = torch.stack([table[label] for label in clicked.values()], 1)[None]  # (1, H, S, E)
            index = torch.tensor(list(clicked))
            steps = {"prior_precision": THETA, "iterations": 2}
            one[2] = naive_em.propagate_values(*one, index, values, **steps, **args)
        mixed.append(naive_em.infer_values(*one, **args))
    return torch.cat(mixed).transpose(1, 2)


class TestClicks:
    @both_kinds
    def test_change_the_values_only(self, attention):
        head = build(attention)
        seen = {}
        for name, clicked in (("none", Clicks.empty(2)), ("some", SOME)):
            kept = []
            projections = [p for p in (head.height, head.width) if p is not None]
            handles = [p.register_forward_hook(lambda *args, kept=kept: kept.append(args[-1])) for p in projections]
            head(features(), clicked, SIZE)
            for handle in handles:
                handle.remove()
            seen[name] = kept
        for without, with_clicks in zip(seen["none"], seen["some"], strict=True):
            assert torch.equal(without[0], with_clicks[0])
            assert torch.equal(without[1], with_clicks[1])
            assert not torch.equal(without[2], with_clicks[2])

    @both_kinds
    @pytest.mark.parametrize("propagate_in", ["width", "both"])
    def test_without_clicks_propagation_does_nothing(self, attention, propagate_in):
        head = build(attention, propagate_in=propagate_in)
        out = head(features(), Clicks.empty(2), SIZE)
        az.set_adaptation(head, value_propagation=0)
        assert_close(head(features(), Clicks.empty(2), SIZE), out)
        assert_close(head(features(), Clicks.empty(2).padded(3), SIZE), out)

    @both_kinds
    def test_propagation_does_something_with_clicks(self, attention):
        head = build(attention)
        out = head(features(), SOME, SIZE)
        with az.adapted(head, value_propagation=0):
            assert (head(features(), SOME, SIZE) - out).abs().max() > 1e-3

    @both_kinds
    def test_padding_and_other_images_do_not_matter(self, attention):
        head = build(attention, propagate_in="both")
        out = head(features(), SOME, SIZE)
        assert_close(head(features(), SOME.padded(7), SIZE), out)
        alone = clicks([(0, 0, 0)])
        assert_close(head(features()[1:], alone, SIZE), out[1:])
        assert moved(head, SOME, clicks([(3, 5, 1), (9, 15, 0), (8, 1, 1), (30, 2, 0)], [(0, 0, 0)])) < 1e-9

    @both_kinds
    def test_of_several_on_one_unit_the_last_counts(self, attention):
        head = build(attention)
        assert moved(head, clicks([(3, 5, 0), (2, 4, 1)], []), clicks([(3, 5, 1)], [])) < 1e-9
        assert moved(head, clicks([(3, 5, 1), (2, 4, 0)], []), clicks([(3, 5, 1)], [])) > 1e-3


@both_kinds
def test_a_click_on_a_wrongly_labelled_region_flips_what_looks_alike_elsewhere(attention):
    """Three colours: an object, a background, and a third that the classifier takes for the object."""
    head = CorrectiveAttention(
        3, dim=3, attention=attention, context=None, mixer=partial(Probabilistic, beta=0.1, value_prior_precision=1e-3)
    )
    colours = torch.tensor(
        [
            [0, 1, 1, 0, 2, 2, 0, 1],
            [1, 2, 1, 0, 0, 2, 1, 1],
            [1, 2, 1, 0, 0, 0, 1, 2],
            [1, 2, 1, 2, 0, 0, 1, 2],
        ]
    )
    image = torch.eye(3)[colours].movedim(-1, 0)[None]  # (1, 3, 4, 8)
    with torch.no_grad():
        head.bottleneck.weight.copy_(torch.eye(3)[..., None, None])
        head.bottleneck.bias.zero_()
        for projections in filter(None, (head.height, head.width)):
            projections.q.weight.copy_(3 * torch.eye(3))
            projections.k.weight.copy_(3 * torch.eye(3))
            projections.v.weight.zero_()
            projections.v.bias.zero_()
        head.width.v.weight[1, :3] = torch.tensor([2.0, -2.0, 2.0])
    before = head(image, Clicks.empty(1), (4, 8))[0, 0] > 0
    assert torch.equal(before, colours != 1)

    click = clicks([(1, 5, 0)])  # a pixel of the third colour is background
    assert torch.equal(head(image, click, (4, 8))[0, 0] > 0, before)
    with az.adapted(head, value_propagation=5):
        after = head(image, click, (4, 8))[0, 0] > 0
        assert torch.equal(head(image, Clicks.empty(1), (4, 8))[0, 0] > 0, before)
    reached = torch.ones_like(before) if attention == "full" else (torch.arange(4) == 1)[:, None].expand(4, 8)
    assert torch.equal(after, torch.where(reached, colours == 0, before))


class TestEveryMixer:
    @both_kinds
    @pytest.mark.parametrize("name", costly())
    def test_classifies_and_every_parameter_learns(self, name, attention):
        head = build(attention, mixer=name, grid=GRID, context=4).train()
        out = head(features(), SOME, SIZE)
        assert out.shape == (2, 1, *SIZE)
        out.square().sum().backward()
        left = [name for name, p in head.named_parameters() if p.requires_grad and not (p.grad.abs() > 0).any()]
        assert left == []

    @pytest.mark.parametrize("name", [name for name in SELF if name != "Probabilistic"])
    def test_only_probabilistic_ones_propagate(self, name):
        head = build(mixer=name, grid=GRID)
        with pytest.raises(az.InputError, match="value_propagation=5: CorrectiveAttention"):
            az.set_adaptation(head, value_propagation=5)


class TestLearning:
    @both_kinds
    @pytest.mark.parametrize("propagate_in", ["width", "both"])
    def test_gradients_through_adaptation_are_right(self, attention, propagate_in):
        head = build(attention, propagate_in=propagate_in)
        az.set_adaptation(head, key_adaptation=1, key_prior_precision=0.1)
        learned = [p for p in head.parameters() if p.requires_grad]
        assert any(p is head.fixed_logits for p in learned)
        x = features(1).requires_grad_()

        def logits(x, *_):
            return head(x, clicks([(3, 5, 1), (9, 15, 0)]), SIZE).sum((2, 3))

        assert torch.autograd.gradcheck(logits, (x, *learned), fast_mode=True)

    def test_training_through_adaptation_lowers_the_loss(self):
        head = build("full").train()
        az.set_adaptation(head, key_adaptation=1)
        target = (torch.arange(192).view(1, 1, *SIZE) % 16 > 8).double().expand(2, -1, -1, -1)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        losses = []
        for _ in range(15):
            logits = head(features(), clicks([(3, 12, 1), (9, 1, 0)], [(2, 14, 1), (4, 4, 0)]), SIZE)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]

    @both_kinds
    def test_steps_with_and_without_clicks_reach_the_same_parameters(self, attention):
        head = build(attention, propagate_in="both")
        for clicked in (Clicks.empty(2), SOME):
            head.zero_grad()
            head(features(), clicked, SIZE).sum().backward()
            assert [name for name, p in head.named_parameters() if p.grad is None] == []

    def test_fixed_logits_that_nothing_teaches_are_no_parameters_to_learn(self):
        assert not build(propagation=0).fixed_logits.requires_grad


class TestForms:
    def test_other_sizes(self):
        head = build()
        for size in ((5, 7), (24, 8)):
            assert head(features(), SOME, size).shape == (2, 1, *size)

    def test_save_and_load(self, tmp_path):
        head = build(propagate_in="both")
        torch.save(head.state_dict(), tmp_path / "head.pt")
        other = build(propagate_in="both", seed=5)
        other.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
        assert torch.equal(other(features(), SOME, SIZE), head(features(), SOME, SIZE))

    def test_autocast(self):
        head = build().float()
        with torch.autocast("cpu", torch.bfloat16):
            assert head(features().float(), SOME, SIZE).isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"attention": "axal"}, "unknown attention 'axal'; did you mean 'axial'"),
            ({"propagate_in": "height"}, "unknown propagate_in 'height'"),
            ({"mixer": "Probabalistic"}, "unknown mixer 'Probabalistic'; did you mean 'Probabilistic'"),
            ({"stride": 0}, "stride=0"),
            ({"num_heads": 8}, "num_heads=8"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(az.InputError, match=message):
            build(**options)

    def test_the_convolution_reads_no_clicks(self):
        head = ConvHead(5).double()
        assert moved(head, SOME) == 0
