"""Premises of single readings, each measured where it is known whether it holds."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional.robust import Penalty

NUMBER = 7


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(number=NUMBER, width=5):
    return (draw(2, 3, number, width, seed=seed) for seed in range(3))


def full(number):
    return torch.full((2, 3), number, dtype=torch.float64)


def measured(name, q, k, v, **options):
    """Return what the layer of a mixer measures, with the width and heads of q (B, H, N, D)."""
    mixer = az.create_mixer(name, q.shape[1] * q.shape[3], q.shape[1], dtype=q.dtype, **options).eval()
    with torch.no_grad():
        return mixer.premise_measures(q, k, v)


class TestSinkhorn:
    def test_sums_of_rows_and_columns(self):
        q, k, v = heads()
        weights = (q @ k.mT / 5**0.5).softmax(-1)
        (reached,) = measured("Sinkhorn", q, k, v, iterations=9).values()
        off = (weights.sum(-2) - 1).abs().mean(-1)
        assert_close(reached.values[..., 0], off)
        assert_close(reached.reference, off)
        assert (reached.last < 0.1 * off).all() and reached.holds.all()

    def test_it_begins_where_the_mixer_does(self):
        q, k, v = heads()
        (reached,) = measured("Sinkhorn", q, k, v, iterations=1, begin="columns").values()
        sums = az.create_mixer("Sinkhorn", 15, 3, iterations=1, begin="columns").mix(q, k, torch.ones_like(v))
        assert_close(reached.last, (sums[..., 0] - 1).abs().mean(-1))


class TestPro:
    @pytest.mark.parametrize(
        "options", [{"kind": "l1"}, {"kind": "mcp"}, {"kind": "mcp", "eps": 2.0}, {"kind": "huber"}]
    )
    def test_slope_of_the_penalty_is_its_weight_times_the_distance(self, options):
        penalty = Penalty(**{"eps": 0.1, "gamma": 0.7, "delta": 0.6, **options})
        distances = torch.linspace(0, 3, 50, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(penalty.cost(distances).sum(), distances)
        values = torch.stack((distances.detach(), torch.zeros_like(slope)), -1)[None, None]
        weights = penalty.log_weights(values, torch.zeros_like(values[:, :, :1]), slice(None)).exp()[0, 0, :, 0]
        assert_close(slope, weights * distances.detach())
        assert penalty.cost(torch.zeros(1)).item() == pytest.approx(0, abs=1e-7)

    @pytest.mark.parametrize("penalty", ["l1", "mcp", "huber"])
    def test_the_robust_mean_has_a_smaller_penalty(self, penalty):
        q, k, v = heads()
        v[:, :, 2] *= 20
        measures = measured("Pro", q, k, v, penalty=penalty)
        path = measures["penalty of the values"]
        assert (path.values.diff(dim=-1) <= 0).all() and path.holds.all()
        moved = measures["share of a row that moves to other values"].last
        assert (moved > 0).all() and (moved < 1).all()

    def test_huber_that_bends_nowhere_moves_nothing_and_no_step_says_nothing(self):
        measures = measured("Pro", *heads(), penalty="huber", delta=1e6)
        assert_close(measures["share of a row that moves to other values"].last, full(0.0))
        assert measured("Pro", *heads(), steps=0) == {}


class TestElliptical:
    def test_metric_that_tokens_agree_on(self):
        q, k, v = heads(20)
        first, second = (az.create_mixer("Elliptical", 15, 3, dtype=torch.float64) for _ in range(2))
        second.follow(first)
        size = torch.tensor([4.0, 1, 1, 1, 1]).double()
        assert first.premise_measures(q, k, v) == {}
        even, agreement = second.premise_measures(q, k, v + size * v.sign()).values()
        assert agreement.holds.all() and agreement.last.min() > 0.999
        share = size / size.sum()
        assert_close(even.last, (-(share * share.log()).sum()).exp().expand(2, 3) / 5)

    def test_metric_of_each_token_s_own(self):
        q, k, v = heads(2)
        first, second = (az.create_mixer("Elliptical", 15, 3, dtype=torch.float64) for _ in range(2))
        second.follow(first)
        first.premise_measures(q, k, v)
        even, agreement = second.premise_measures(q, k, v + torch.tensor([[3.0, 3, 3, 1, 1], [1, 1, 1, 3, 3]])).values()
        assert_close([even.last, agreement.last], [full(1.0), full(-1.0)])


class TestMixtureOfGaussianKeys:
    def test_queries_around_two_gaussians_and_around_one(self):
        q, k, v = heads(40)
        mixer = az.create_mixer("MixtureOfGaussianKeys", 15, 3, dtype=torch.float64)
        with torch.no_grad():
            mixer.components.ratio.fill_(1.0)
            mixer.components.shift[:, 1] = 9.0
            one, of_one = mixer.premise_measures(q, k, v).values()
            two, of_two = mixer.premise_measures(torch.cat((q, q + 9.0), 2), k, v).values()
        assert not one.holds.any() and two.holds.all()
        assert (of_one.last < 0.01).all()
        assert ((of_two.last - 0.5).abs() < 0.01).all()

    def test_one_component_says_nothing(self):
        assert measured("MixtureOfGaussianKeys", *heads(), components=1) == {}


class TestRobustKernel:
    def test_one_key_that_lies_apart(self):
        q, k, v = heads(10)
        k[...] = torch.tensor([1.0, 0, 0, 0, 0])
        k[:, :, 7] = -k[:, :, 7]
        outliers, even = measured("RobustKernel", q, k, v).values()
        assert_close(outliers.last, full(0.1))
        assert outliers.holds.all() and (even.last < 0.99).all()

    def test_keys_that_are_alike(self):
        q, k, v = heads(10)
        k[...] = torch.tensor([1.0, 0, 0, 0, 0])
        outliers, even = measured("RobustKernel", q, k, v).values()
        assert_close([outliers.last, even.last], [full(0.0), full(1.0)])


class TestKernels:
    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_more_random_features_come_nearer_to_the_kernel(self, variant):
        torch.manual_seed(0)
        few, many = (
            next(iter(measured("Performer", *heads(30), variant=variant, feature_ratio=ratio).values()))
            for ratio in (2.0, 800.0)
        )
        assert (many.last < few.last / 2).all() and many.holds.all()

    def test_linear_kernel_beside_softmax(self):
        q, k, v = heads()
        weights = az.create_mixer("Linear", 15, 3).map_weights(q, k, v)
        softmax = (q @ k.mT / 5**0.5).softmax(-1)
        missed = measured("Linear", q, k, v)["share of a row that is read elsewhere than by softmax"]
        assert_close(missed.last, (weights - softmax).abs().sum(-1).mean(-1) / 2)
        assert_close(missed.reference, (1 / NUMBER - softmax).abs().sum(-1).mean(-1) / 2)
        assert measured("Linear", q, k, v, normaliser="rms") == {}

    def test_row_sums_of_sigmoids(self):
        q, k, v = heads()
        off = measured("SigmoidAttention", 0 * q, k, v)["distance of row sums from one"].last
        assert_close(off, full(1 - NUMBER / (NUMBER + 1)))


class TestRouted:
    def test_keys_around_the_centroids(self):
        mixer = az.create_mixer("Routing", 8, 1, clusters=4, dtype=torch.float64).eval()
        mixer.centroids.copy_(torch.eye(8)[:4])
        noise, one = 0.01 * draw(1, 1, 20, 8), torch.ones(1, 1, dtype=torch.float64)
        tight = torch.eye(8)[:4].repeat(5, 1) + noise
        within, even, left_out = mixer.premise_measures(tight, tight, tight).values()
        assert within.last < 0.01 and left_out.last == 0
        assert_close([even.last, left_out.reference], [one, 0.75**4 * one])
        alone = torch.eye(8)[:1] + noise
        assert_close(mixer.premise_measures(alone, alone, alone)["evenness of the clusters"].last, 0.25 * one)

    @torch.no_grad()
    def test_heads_that_all_tokens_choose_and_heads_of_their_own(self):
        mixer = az.create_mixer("MixtureOfHeads", 8, 4, shared=0, topk=1, dtype=torch.float64).eval()
        mixer.of_routed.weight.copy_(torch.eye(8)[:4])
        for x, loads, idle in (
            (torch.eye(8)[:1].expand(8, 8), 0.25, 0.75),
            (torch.eye(8)[:4].repeat(2, 1), 1.0, 0.0),
        ):
            even, without = mixer.premise_measures(*mixer.project(x[None].double())).values()
            assert even.last.item() == pytest.approx(loads) and without.last == idle
            assert even.holds == (loads > 0.25)

    def test_a_token_that_reads_all_heads_chooses_none(self):
        mixer = az.create_mixer("MixtureOfHeads", 8, 4, topk=3)
        assert mixer.premise_measures(*mixer.project(torch.randn(1, 4, 8))) == {}
