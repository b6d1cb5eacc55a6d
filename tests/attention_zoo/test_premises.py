"""Premises of readings: the numbers that they are judged by, and what the layers of a model say."""

import math
from dataclasses import replace

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis.maps import observe
from attention_zoo.analysis.premises import ANY, Examined, about_any, check_readings, examine, findings
from attention_zoo.functional import diagnostics
from attention_zoo.functional.em import adapt_keys
from attention_zoo.mixers.premise import Measure, Premise, mixture, one_space
from attention_zoo.mixers.registry import registering
from attention_zoo.mixers.vars.premise import converged, objective
from attention_zoo.reports.premises import Subject, long_table, panels_of, premise_figure, premise_json, wide_table

NUMBER = 7


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class TestNumbers:
    def test_entropy_of_one_token_and_of_all(self):
        assert_close(diagnostics.row_entropy(torch.eye(NUMBER)[None, None]), torch.zeros(1, 1))
        assert_close(diagnostics.row_entropy(torch.full((1, 1, NUMBER, NUMBER), -0.3)), torch.ones(1, 1))

    def test_effective_rank_by_singular_values(self):
        weights = draw(2, 3, NUMBER, 5)
        power = torch.linalg.svdvals(weights).square()
        expected = power.sum(-1).square() / power.square().sum(-1)
        assert_close(diagnostics.effective_rank(weights), expected)
        assert_close(diagnostics.effective_rank(1e-20 * torch.eye(NUMBER)[None, None]), torch.full((1, 1), 7.0))

    def test_tokens_of_mass(self):
        weights = torch.tensor([[0.95, 0.05, 0.0, 0.0], [0.5, -0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]])
        assert_close(diagnostics.tokens_of_mass(weights), torch.tensor([1.0, 3.0, 4.0]))

    def test_leave_one_out_leaves_each_token_out(self):
        scores, v = draw(2, 3, NUMBER, NUMBER), draw(2, 3, NUMBER, 4, seed=1)
        left_out = scores.masked_fill(torch.eye(NUMBER, dtype=torch.bool), -torch.inf).softmax(-1) @ v
        error = (v - left_out).square().sum((-2, -1)) / (v - v.mean(-2, keepdim=True)).square().sum((-2, -1))
        assert_close(diagnostics.leave_one_out_error(scores.softmax(-1), v), error)

    def test_the_mean_of_all_others_misses_by_the_known_factor(self):
        error = diagnostics.leave_one_out_error(torch.eye(NUMBER).double()[None, None], draw(1, 1, NUMBER, 4))
        assert_close(error, torch.full_like(error, (NUMBER / (NUMBER - 1)) ** 2))

    def test_a_token_that_reads_itself_alone_is_foretold_by_the_mean_and_smoothing_twice_never_sees_it(self):
        v = draw(1, 1, NUMBER, 4)
        once = diagnostics.without_self(draw(1, 1, NUMBER, NUMBER, seed=1).softmax(-1))
        assert_close(once.sum(-1), torch.ones(1, 1, NUMBER).double())
        twice = 2 * once - once @ once
        errors = []
        for shift in (0.0, 1e6):  # of one token's value alone, which what foretells it must not see
            moved = v.clone()
            moved[..., 3, :] += shift
            row = diagnostics.without_self(twice)[0, 0, 3] @ moved[0, 0]
            errors.append(row)
        assert_close(*errors, rtol=0, atol=1e-6)

    def test_likelihood_is_that_of_torch_s_mixture(self):
        q, k = draw(2, 3, NUMBER, 4), draw(2, 3, 5, 4, seed=1)
        alpha, log_prior = draw(2, 3, 5, seed=2).exp(), draw(2, 3, 5, seed=3)
        units = torch.distributions.Independent(torch.distributions.Normal(k, alpha[..., None].rsqrt()), 1)
        chosen = torch.distributions.Categorical(logits=log_prior)
        twin = torch.distributions.MixtureSameFamily(chosen, units).log_prob(q.movedim(2, 0)).mean(0) / 4
        assert_close(diagnostics.log_likelihood(q, k, alpha, log_prior), twin)

    def test_chance_is_the_mean_over_random_assignments(self):
        x = draw(1, 1, NUMBER, 4)
        members = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 2, 2, 3, 3]), 5).double().mT[None, None]
        generator = torch.Generator().manual_seed(0)
        orders = torch.stack([torch.randperm(NUMBER, generator=generator) for _ in range(4000)])
        shuffled = x[0, 0][orders][:, None]
        drawn, chance = diagnostics.within_cluster_share(shuffled, members.expand(4000, -1, -1, -1))
        assert abs(drawn.mean() - chance[0, 0]) < 0.01

    def test_coding_rate_by_singular_values(self):
        w = draw(2, 3, NUMBER, 4)
        expected = (1 + 4 / (NUMBER * 0.25) * torch.linalg.svdvals(w).square()).log().sum(-1) / 2
        assert_close(diagnostics.coding_rate(w), expected)

    def test_equal_values_define_no_error(self):
        assert diagnostics.leave_one_out_error(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 2)).isnan().all()
        one = diagnostics.within_cluster_share(draw(1, 1, 1, 2), torch.ones(1, 1, 1, 1))
        assert all(x.isnan().all() for x in one)


OPTIONS = {"alpha": 0.7, "prior_precision": 0.0, "anchor": "current", "precision_prior": (3.0, 2.0)}


def test_em_makes_the_queries_likelier_under_equal_weights():
    q, k = draw(2, 3, 30, 4), draw(2, 3, 30, 4, seed=1)
    measures = mixture(q, k, magnitude_prior=False, **OPTIONS)
    path = measures["log-likelihood of the queries, keys adapted"].values
    assert (path.diff(dim=-1) > 0).all()
    assert measures["log-likelihood of the queries, keys adapted"].holds.all()
    adapted = adapt_keys(q, k, alpha=0.7, iterations=2, magnitude_prior=False)
    assert_close(path[..., 2], diagnostics.log_likelihood(q, adapted, 0.7, torch.zeros(2, 3, 30)))
    kept = measures["variance of the keys as they adapt, of what it was"].values
    assert_close(kept[..., 0], torch.ones(2, 3, dtype=torch.float64))
    assert_close(kept[..., 2], adapted.var(2).sum(-1) / k.var(2).sum(-1))
    blind = mixture(q, k, magnitude_prior=False, **OPTIONS | {"alpha": 1e-6})  # each query is as likely from any key
    assert blind["variance of the keys as they adapt, of what it was"].last.max() < 1e-9


def test_queries_kept_back_do_not_move_the_keys():
    q, k = draw(1, 2, 8, 4), draw(1, 2, 8, 4, seed=1)
    other = q.clone()
    other[:, :, 1::2] += 1e-9
    one, two = (mixture(x, k, magnitude_prior=True, **OPTIONS) for x in (q, other))
    name = "log-likelihood of queries kept back, keys adapted"
    assert_close(one[name].values, two[name].values, rtol=0, atol=1e-8)
    other[:, :, 1::2] += 50.0
    assert (mixture(other, k, magnitude_prior=True, **OPTIONS)[name].last < one[name].last).all()


def test_queries_and_keys_of_one_space_and_of_two():
    x = draw(2, 3, 400, 4)
    apart, size, shape = one_space(x[:, :, :200], x[:, :, 200:]).values()
    assert apart.holds.all()
    assert apart.values.max() < 0.3
    assert_close(size.values, torch.ones_like(size.values), rtol=0.3, atol=0)
    assert shape.values.min() > 0.8
    stretched = x * torch.tensor([5.0, 0.1, 0.1, 0.1])
    keys = x.roll(1, -1) * torch.tensor([0.1, 0.1, 0.1, 5.0]) / 2 + 3
    apart, size, shape = one_space(stretched, keys).values()
    assert not apart.holds.any()
    assert_close(size.values, torch.full_like(size.values, 4.0), rtol=0.5, atol=0)
    assert not shape.holds.any()
    deviation = ((x.var(2, correction=0).sum(-1) + (2 * x).var(2, correction=0).sum(-1)) / 2).sqrt()
    apart = one_space(x, 2 * x + 3)["means of queries and keys apart, in standard deviations"]
    assert_close(apart.values, (x.mean(2) + 3).norm(dim=-1) / deviation)


def test_one_token_has_no_covariance_to_compare():
    apart, size, shape = one_space(draw(1, 2, 1, 3), draw(1, 2, 1, 3, seed=1)).values()
    assert size.values.isnan().all()
    assert shape.values.isnan().all()
    assert not apart.holds.any()


@pytest.mark.parametrize("name", ["VarsS", "VarsD", "VarsSD"])
def test_best_codes_are_stationary_and_better_than_the_layer_s(name):
    mixer = az.create_mixer(name, 12, 2, grid=(3, 4), dtype=torch.float64)
    q, _, v = mixer.project(draw(1, 12, 12))
    dictionary, lista = mixer.problem(q, mixer.split(v))
    lam = torch.tensor(mixer.lam, dtype=torch.float64)
    best = converged(dictionary, mixer.split(v), lam, steps=1000)
    slope = dictionary.encode(dictionary.decode(best) - mixer.split(v))
    active = best != 0
    assert_close(slope[active], -lam * best[active].sign(), rtol=1e-3, atol=1e-3)
    assert (slope[~active].abs() <= lam * 1.01).all()
    least, own = (objective(dictionary, codes, mixer.split(v), lam) for codes in (best, lista.solve()))
    assert (least < own).all()


def test_every_premise_is_a_sentence_and_its_measures_have_a_number_for_each_image_and_head():
    bringing = 0
    for name in az.list_mixers("self"):
        mixer = az.create_mixer(name, 12, 2, grid=(2, 5)).eval()
        if isinstance(mixer, Premise):
            bringing += 1
            assert mixer.premise.endswith(".") and "\n" not in mixer.premise
            with torch.no_grad():
                measures = mixer.premise_measures(*mixer.project(torch.randn(3, 10, 12)))
            for measure in measures.values():
                assert measure.last.shape in ((3, 2), (3, 1))
                assert measure.last.isfinite().all()
                assert measure.compared_with is None or measure.compared_with.shape == measure.last.shape
    assert bringing >= 24


def test_clusters_that_are_there_hold_and_dead_centres_are_counted():
    mixer = az.create_mixer("KMeans", 4, 1, num_clusters=3, metric="euclidean", reduce="mean")
    with torch.no_grad():
        mixer.centres.copy_(torch.tensor([[[5.0, 0, 0, 0], [-5.0, 0, 0, 0], [0, 99.0, 0, 0]]]))
    k = torch.zeros(1, 1, 10, 4)
    k[..., :5, 0], k[..., 5:, 0] = 5, -5
    k = k + 0.1 * torch.randn(k.shape, generator=torch.Generator().manual_seed(0))
    measures = mixer.premise_measures(k, k, k)
    assert measures["variance of keys within clusters"].last < 0.01
    assert_close(measures["variance of keys within clusters"].reference, torch.full((1, 1), 8 / 9))
    assert_close(measures["dead centres"].last, torch.full((1, 1), 1 / 3))


class TestModels:
    def test_each_layer_s_own_reading_and_any_reading(self, model, images):
        mixed = az.swap_mixers(
            timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2),
            layers={"0": "VarsD", "1": "KMeans"},
        )
        found = {(each.layer, each.reading) for each in examine(mixed, images)}
        assert found == {(0, ANY), (0, "VarsD"), (1, ANY), (1, "KMeans")}
        found = {(each.layer, each.reading) for each in examine(model, images, "last", ["Probabilistic", "DotProduct"])}
        assert found == {(1, ANY), (1, "DotProduct"), (1, "Probabilistic")}

    def test_batches_say_what_all_images_say(self, model, images):
        whole = findings([examine(model, images)])
        parts = findings([examine(model, images[:1]), examine(model, images[1:])])
        assert len(whole) == len(parts) > 10
        for one, other in zip(whole, parts, strict=True):
            assert (one.layer, one.measure, one.counted) == (other.layer, other.measure, other.counted)
            assert math.isclose(one.mean, other.mean, rel_tol=1e-4)
            assert math.isclose(one.deviation, other.deviation, rel_tol=1e-2, abs_tol=1e-5)

    def test_a_mixer_from_outside_brings_its_own(self, model, images):
        with registering():

            @az.register
            class Mean(az.SelfMixer):
                """Reads the mean."""

                reading, paper, equation, complexity = "mean", "this test", "1/N sum v", "N"
                premise = "Keys are short."

                def mix(self, q, k, v):
                    return v.mean(2, keepdim=True).expand_as(v)

                def premise_measures(self, q, k, v):
                    return {"length of keys": Measure(k.norm(dim=-1).mean(-1), q.norm(dim=-1).mean(-1), "lower")}

            found = examine(model, images, "0", ["Mean"])
            asked = next(each for each in found if each.reading == "Mean")
            assert asked.premise == "Keys are short."
            assert asked.measures["length of keys"].last.shape == (3, 2)

    def test_top_down_s_decoders(self, images):
        torch.manual_seed(0)
        inner = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2)
        model = az.TopDown(az.swap_mixers(inner, "DotProduct"))
        host = model.eval().host
        _, ((before, after),) = host.run(host.embed(images), keep=[0])
        with torch.no_grad():
            fit = torch.linalg.lstsq(after.flatten(0, 1), before.flatten(0, 1)).solution
            model.decoders[0].linear.weight.copy_(fit.mT)
        found = {each.layer: each.measures for each in examine(model, images) if each.reading == "TopDown"}
        rebuilt = found[0]["R² of the decoder"]
        rest = (after @ fit - before).square().sum((1, 2))
        spread = (before - before.mean(1, keepdim=True)).square().sum((1, 2))
        assert_close(rebuilt.last[:, 0], 1 - rest / spread, rtol=1e-4, atol=1e-4)
        assert rebuilt.holds.all() and not found[1]["R² of the decoder"].holds.all()
        assert (found[1]["cosine of signal and input"].last.abs() <= 1).all()
        assert [each for each in examine(az.TopDown(inner, mode="mask_att"), images) if each.reading == "TopDown"] == []

    def test_layers_are_asked_with_the_signal_that_they_hear_and_in_evaluation_mode(self, images):
        torch.manual_seed(0)
        inner = timm.create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.9
        )
        model = az.TopDown(az.swap_mixers(inner, "DotProduct"))
        with torch.no_grad():
            for parameter in model.decoders.parameters():
                parameter.normal_(std=1.0)
        found = {each.layer: each.measures for each in examine(model.train(), images) if each.reading == "DotProduct"}
        assert all(module.training for module in model.modules())
        name = "leave-one-out error of the values"
        for seen in observe(model, images, "0-1").layers:
            assert seen.signal
            with torch.no_grad():
                expected = seen.mixer.premise_measures(*seen.mixer.project(seen.tokens, **seen.signal))[name]
                deaf = seen.mixer.premise_measures(*seen.mixer.project(seen.tokens))[name]
            assert_close(found[seen.layer][name].last, expected.last)
            assert (found[seen.layer][name].last - deaf.last).abs().max() > 1e-3
        rebuilt = "R² of the decoder"
        trained, evaluated = (
            [each.measures[rebuilt].last for each in examine(model.train(mode), images) if rebuilt in each.measures]
            for mode in (True, False)
        )
        assert len(trained) == 2
        assert_close(trained, evaluated)

    def test_other_readings_of_a_mixer_that_takes_the_tokens(self, images):
        torch.manual_seed(0)
        inner = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=1, num_heads=2)
        model = az.swap_mixers(inner, "MixtureOfHeads")
        found = {each.reading: each.measures for each in examine(model, images, "0", ["Hopfield", "DotProduct"])}
        (seen,) = observe(model, images, "0").layers
        q, k, v = seen.mixer.project(seen.tokens)
        dot = az.create_mixer("DotProduct", 32, 2)
        name = "leave-one-out error of the values"
        assert_close(found["DotProduct"][name].last, dot.premise_measures(q[..., :16], k, v)[name].last)
        assert found["Hopfield"]["energy of the queries"].last.shape == (3, 2)

    def test_elliptical_is_asked_of_layers_that_follow_each_other(self, model, images):
        every = examine(model, images, None, ["Elliptical"])
        found = {each.layer: each.measures for each in every if each.reading == "Elliptical"}
        assert found[0] == {}
        one, two = (seen.mixer.project(seen.tokens)[2] for seen in observe(model, images, "0-1").layers)
        change = (two - one).abs().mean(2)
        share = change / change.sum(-1, keepdim=True)
        even = (-(share * share.log()).sum(-1)).exp() / 16
        assert_close(found[1]["evenness of the channels' precisions"].last, even)

    def test_tokens_that_are_alike(self, model, images):
        class Alike:
            mixer = az.create_mixer("DotProduct", 12, 2)
            tokens = torch.ones(3, NUMBER, 12)
            signal = {}

        measures = about_any(Alike)
        for name, value in (("row entropy", 1.0), ("effective rank of the map", 1.0), ("diversity of the tokens", 0.0)):
            assert measures[name].last.mean().item() == pytest.approx(value, abs=1e-5)
        assert measures["rows that average most tokens"].last.min() == 1


@pytest.mark.parametrize("name", ["Sigmoid", "Window", "KMeans", "KMeansCross", "VarsS", "MixtureOfHeads", "Routing"])
def test_readings_that_cannot_be_asked(name):
    with pytest.raises(az.InputError, match=f"{name}.*choose from: .*DotProduct"):
        check_readings([name])


FLAT = Measure(torch.ones(2, 3))


class TestReports:
    def subjects(self, *values):
        measure = Measure(torch.tensor(values)[:, None, None].expand(-1, 2, 3), better="higher")
        found = findings([[self.examined({"steps": measure, "flat": Measure(measure.last)})]])
        return [Subject(name, found, {"R": "It rises."}) for name in ("one", "two")]

    def examined(self, measures):
        return Examined(0, "R", "It rises.", measures)

    def test_what_is_not_defined_is_no_number(self):
        subjects = self.subjects(1.0, math.nan, 3.0)
        record = premise_json(subjects)[0]["findings"][0]
        assert (record["mean"], record["counted"], record["total"], record["holds"]) == (2.0, 4, 6, 0.0)
        assert any("not defined, 2 times" in note for note in wide_table(subjects).notes)

    def test_nothing_is_defined(self):
        subjects = self.subjects(math.nan, math.inf)
        record = premise_json(subjects)[0]["findings"][1]
        assert record["mean"] is None and record["deviation"] is None and record["counted"] == 0
        assert wide_table(subjects).rows[0][-1] == "-"
        assert "nan" not in long_table(subjects).csv().casefold()
        premise_figure(subjects)

    def test_figure_has_a_panel_for_each_measure_and_one_for_steps(self):
        figure = premise_figure(self.subjects(1.0, 2.0))
        assert [axes.get_xlabel() for axes in figure.axes] == ["layer", "layer", "step"]

    def test_readings_share_a_panel_unless_a_model_has_several(self):
        steps = Measure(torch.tensor([900.0, 40.0, 2.0]).expand(2, 3, 3), better="lower")

        def subject(name, *readings):
            each = [Examined(0, reading, "It falls.", {"gap": steps}) for reading in readings]
            return Subject(name, findings([each]), dict.fromkeys(readings, "It falls."))

        apart = [subject("one", "R"), subject("two", "S")]
        figure = premise_figure(apart)
        assert panels_of(apart) == [(("R", "S"), "gap")]
        assert [axes.get_title() for axes in figure.axes] == ["gap\n(R, S)"] * 2
        assert len(figure.axes[0].lines) == 4  # with what each is compared with
        assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log"]
        both = [subject("one", "R", "S"), subject("two", "R")]
        assert panels_of(both) == [(("R",), "gap"), (("S",), "gap")]
        assert [len(axes.lines) for axes in premise_figure(both).axes] == [4, 2, 2, 1]

    def test_many_bands_are_left_out_and_long_titles_are_broken(self):
        def bands(count):
            subjects = [replace(self.subjects(1.0, 2.0)[0], name=str(place)) for place in range(count)]
            return len(premise_figure(subjects).axes[0].collections)

        assert (bands(4), bands(5)) == (4, 0)
        found = findings([[self.examined({"share of a row that is read elsewhere than by softmax": FLAT})]])
        (axes,) = premise_figure([Subject("one", found, {})]).axes
        assert axes.get_title() == "share of a row that is read\nelsewhere than by softmax\n(R)"
