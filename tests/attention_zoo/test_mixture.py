"""The switches of the mixture: identities between readings, what must fall or rise with each step, and naive twins."""

import copy
import pickle

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import em, mixture
from attention_zoo.functional.mixture import joint
from attention_zoo.functional.robust import Penalty, infer_robust_values
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood

B, H, N, D = 2, 3, 7, 5
SCALE = D**-0.5
PENALTIES = ["l1", "mcp", "huber"]
exactly = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(scale=1.0):
    return tuple(draw(B, H, N, D, seed=seed, scale=scale).requires_grad_() for seed in range(3))


def build(name, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, H * D, H, dtype=torch.float64, **options)


def mixed(name, *tensors, **options):
    return build(name, **options).mix(*tensors)


def softmax(q, k):
    return (SCALE * q @ k.mT).softmax(-1)


def squared(x, y):
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def same(found, expected, inputs):
    """Same values, and same gradients in every input."""
    assert_close(found, expected, **exactly)
    probe = draw(*found.shape, seed=9)
    pairs = [torch.autograd.grad((x * probe).sum(), inputs, allow_unused=True) for x in (found, expected)]
    for quick, plain in zip(*pairs, strict=True):
        none = torch.zeros(())
        assert_close(none if quick is None else quick, none if plain is None else plain, rtol=1e-8, atol=1e-10)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(mixture, "BLOCK", 3 * B * H * N)  # several blocks, the last one smaller


class TestIdentities:
    def test_a_uniform_prior_is_a_gaussian_kernel(self):
        q, k, v = heads()
        found = mixed("Probabilistic", q, k, v, magnitude_prior=False)
        same(found, (SCALE * q @ k.mT - SCALE / 2 * k.square().sum(-1)[..., None, :]).softmax(-1) @ v, [q, k, v])
        assert_close(found, (-SCALE / 2 * squared(q, k)).softmax(-1) @ v, **exactly)
        assert_close(found, mixed("Probabilistic", q, k, v, prior=UnitPrior("uniform")), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("Probabilistic", {}),
            ("Hopfield", {"steps": 0}),
            ("Sinkhorn", {"iterations": 1}),
            ("Elliptical", {}),
            *(("Pro", {"penalty": penalty, "steps": 0}) for penalty in PENALTIES),
            ("Pro", {"penalty": "huber", "delta": 1e9}),
            ("Pro", {"penalty": "huber", "delta": 1e300}),
            ("Pro", {"penalty": "mcp", "gamma": 1e-12}),
        ],
    )
    def test_dot_product(self, name, options):
        q, k, v = heads()
        same(mixed(name, q, k, v, **options), mixed("DotProduct", q, k, v), [q, k, v])

    @pytest.mark.parametrize(
        ("name", "options"),
        [("MixtureOfGaussianKeys", {"components": 1}), ("Probabilistic", {"kernel": Kernel(metric="diagonal")})],
    )
    def test_gaussian_kernel(self, name, options):
        q, k, v = heads()
        options = options | ({"prior": UnitPrior("uniform")} if name == "Probabilistic" else {})
        same(mixed(name, q, k, v, **options), (-SCALE / 2 * squared(q, k)).softmax(-1) @ v, [q, k, v])

    def test_two_half_steps_from_columns_are_doubly_normalised(self):
        q, k, v = heads()
        found = mixed("Sinkhorn", q, k, v, iterations=2, begin="columns")
        same(found, mixed("DoublyNormalized", q, k, v), [q, k, v])

    @pytest.mark.parametrize("source", ["learned", "predicted"])
    @pytest.mark.parametrize("prior", ["magnitude", "uniform", "predicted"])
    def test_what_is_learned_starts_at_the_fixed_numbers(self, source, prior):
        q, k, v = heads()
        start = mixed(
            "Probabilistic", q, k, v, prior=UnitPrior("uniform" if prior == "predicted" else prior), alpha=0.7
        )
        learned = mixed("Probabilistic", q, k, v, kernel=Kernel(alpha=source), prior=UnitPrior(prior), alpha=0.7)
        same(learned, start, [q, k, v])

    @pytest.mark.parametrize("source", ["learned", "predicted"])
    def test_learned_theta_and_beta_start_at_the_fixed_numbers(self, source):
        q, k, v = heads()
        options = {"key_adaptation": 2, "key_prior_precision": 0.3, "beta": 0.2, "magnitude_prior": False}
        fixed = mixed("Probabilistic", q, k, v, value_likelihood=ValueLikelihood(iterations=3), **options)
        likelihood = ValueLikelihood(iterations=3, beta=source)
        found = mixed("Probabilistic", q, k, v, value_likelihood=likelihood, adapt=Adapt(theta=source), **options)
        same(found, fixed, [q, k, v])

    def test_named_mixers_are_settings_of_probabilistic(self):
        q, k, v = heads()
        for name, options, switches in (
            ("Hopfield", {"steps": 2}, {"adapt": Adapt(queries=2)}),
            ("Sinkhorn", {"iterations": 4}, {"adapt": Adapt(half_steps=4)}),
            ("Pro", {"penalty": "mcp", "steps": 2}, {"value_likelihood": ValueLikelihood("mcp", 2)}),
            (
                "MixtureOfGaussianKeys",
                {"components": 3},
                {"kernel": Kernel(components=3), "prior": UnitPrior("uniform")},
            ),
            (
                "RobustKernel",
                {"loss": "hampel"},
                {"kernel": Kernel(unit_keys=True), "prior": UnitPrior("robust", "hampel"), "alpha": 2 * SCALE},
            ),
        ):
            assert_close(mixed(name, q, k, v, **options), mixed("Probabilistic", q, k, v, **switches), rtol=0, atol=0)


class TestNaiveTwins:
    """The papers' formulas in N x N matrices."""

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_hopfield(self, steps):
        q, k, v = heads()
        state = q
        for _ in range(steps):
            state = softmax(state, k) @ k
        same(mixed("Hopfield", q, k, v, steps=steps), softmax(state, k) @ v, [q, k, v])

    @pytest.mark.parametrize("begin", ["rows", "columns"])
    @pytest.mark.parametrize("iterations", [1, 2, 3, 6])
    def test_sinkhorn(self, iterations, begin):
        q, k, v = heads()
        log_weights = SCALE * q @ k.mT
        for step in range(iterations):
            dim = -1 if (begin == "rows") == (step % 2 == 0) else -2
            log_weights = log_weights - log_weights.logsumexp(dim, keepdim=True)
        same(mixed("Sinkhorn", q, k, v, iterations=iterations, begin=begin), log_weights.exp() @ v, [q, k, v])

    def test_sinkhorn_in_the_limit_is_doubly_stochastic(self):
        weights = build("Sinkhorn", iterations=301).map_weights(*heads())
        ones = torch.ones(B, H, N, dtype=torch.float64)
        assert_close(weights.sum(-1), ones, **exactly)
        assert_close(weights.sum(-2), ones, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("penalty", PENALTIES)
    @pytest.mark.parametrize("through_distance", [False, True])
    def test_pro(self, penalty, through_distance):
        q, k, v = heads()
        eps, gamma, delta = 0.02, 3.0, 0.7
        z = softmax(q, k) @ v
        for _ in range(3):
            distances = (z[:, :, :, None] - v[:, :, None]).norm(dim=-1)
            d = (distances if through_distance else distances.detach()) + eps
            w = {"l1": 1 / d, "mcp": (1 / d - 1 / gamma).clamp(min=eps), "huber": (delta / d).clamp(max=1)}[penalty]
            weights = w * softmax(q, k)
            z = weights / weights.sum(-1, keepdim=True) @ v
        options = {"penalty": penalty, "eps": eps, "gamma": gamma, "delta": delta}
        same(mixed("Pro", q, k, v, distance_gradient=through_distance, **options), z, [q, k, v])

    def test_mixture_of_gaussian_keys(self):
        q, k, v = heads()
        mixer = build("MixtureOfGaussianKeys", components=3)
        with torch.no_grad():
            for parameter in mixer.components.parameters():
                parameter.add_(draw(*parameter.shape, seed=4))
        parts = mixer.components
        alpha = SCALE * torch.nn.functional.softplus(parts.ratio)  # (H, R)
        density = torch.zeros(B, H, N, N, dtype=torch.float64)
        for r in range(3):
            precision = alpha[:, r, None, None]
            gaussian = precision ** (D / 2) * (-precision / 2 * squared(q, k + parts.shift[:, r, None])).exp()
            density = density + parts.share.softmax(-1)[:, r, None, None] * gaussian
        expected = density / density.sum(-1, keepdim=True) @ v
        same(mixer.mix(q, k, v), expected, [q, k, v, *parts.parameters()])

    @pytest.mark.parametrize("loss", ["huber", "hampel"])
    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_robust_kernel(self, loss, steps):
        q, k, v = heads()
        keys, a = k / k.norm(dim=-1, keepdim=True), 0.4

        def fit(x):
            kernel = (-SCALE * squared(x, x)).exp()
            pi = torch.full((B, H, N, 1), 1 / N, dtype=torch.float64)
            for _ in range(steps):
                h = (1 - 2 * kernel @ pi + pi.mT @ kernel @ pi).sqrt()
                psi = torch.where(h < a, h, torch.full_like(h, a))
                if loss == "hampel":
                    psi = torch.where(h < 2 * a, psi, (3 * a - h).clamp(min=0))
                weight = (psi / h).clamp(min=0.01 if loss == "hampel" else 0)
                pi = weight / weight.sum(-2, keepdim=True)
            return pi.mT

        kernel = (-SCALE * squared(q, keys)).exp()
        above, below = fit(torch.cat((keys, v), -1)) * kernel, fit(keys) * kernel
        expected = above / below.sum(-1, keepdim=True) @ v
        same(mixed("RobustKernel", q, k, v, loss=loss, threshold=a, steps=steps), expected, [q, k, v])

    def test_an_outlier_counts_less_under_a_robust_prior(self):
        q, k, v = (x.detach().clone() for x in heads(0.1))
        k[..., 0] += 3
        k[:, :, 3] *= -1
        weights = build("RobustKernel", steps=5).map_weights(q, k, v)
        plain = build("RobustKernel", steps=0).map_weights(q, k, v)
        assert (weights[..., 3] < 0.7 * plain[..., 3]).all()

    @pytest.mark.parametrize("iterations", [1, 2, 4])
    @pytest.mark.parametrize("of_units", [False, True])
    def test_values_of_several_steps(self, iterations, of_units):
        q, k, v = heads()
        alpha = draw(B, H, N, seed=5).exp() if of_units else 0.6
        beta = draw(B, H, N, seed=6).exp() if of_units else 0.8
        out = em.infer_values(q, k, v, alpha=alpha, beta=beta, magnitude_prior=False, iterations=iterations)
        a, b = (x[:, :, None] if of_units else torch.tensor(x, dtype=torch.float64) for x in (alpha, beta))
        by_keys = a ** (D / 2) * b * (-a / 2 * squared(q, k)).exp()
        weights = by_keys
        for _ in range(iterations):
            expected = weights / weights.sum(-1, keepdim=True) @ v
            weights = by_keys * b ** (D / 2) * (-b / 2 * squared(expected, v)).exp()
        same(out, expected, [q, k, v])


SETTINGS = {
    "one alpha": {"alpha": 0.6},
    "magnitude": {"alpha": 0.6, "magnitude_prior": True},
    "precise": {"alpha": draw(B, H, N, seed=5).exp()},
    "mixing": {"alpha": 0.6, "log_mixing": draw(B, H, N, seed=6)},
    "prior": {"alpha": 0.6, "log_prior": draw(N, N, seed=7).tril()},
    "metric": {"alpha": 0.6},
    "components": {"alpha": 0.6},
}


@pytest.mark.parametrize("setting", SETTINGS)
class TestEveryStepIsUphill:
    """The likelihood that EM is to raise rises with every step, whatever the other switches are."""

    def units(self, setting):
        terms = {"magnitude_prior": False} | SETTINGS[setting]
        q, k, v = (x.detach() for x in heads(1.5))
        if setting == "metric":
            scale = draw(D, seed=3).abs().sqrt()
            q, k = q * scale, k * scale
        if setting == "components":
            k, v = torch.cat((k, k + 0.3, k - 1), 2), torch.cat((v, v, v), 2)
            terms["alpha"] = torch.cat([torch.full((B, H, N), a, dtype=torch.float64) for a in (0.3, 0.9, 2.0)], -1)
        return q, k, v, terms

    def rises(self, path):
        path = torch.stack(path)
        assert (path.diff(dim=0) > -1e-10).all()
        assert (path[1] - path[0]).max() > 1e-4

    def test_queries(self, setting):
        q, k, _, terms = self.units(setting)
        path = [em.log_likelihood(em.adapt_queries(q, k, iterations=t, **terms), k, **terms) for t in range(5)]
        self.rises(path)

    def test_keys(self, setting):
        q, k, _, terms = self.units(setting)
        if terms["magnitude_prior"]:
            terms["magnitude_prior"] = False  # a prior that depends on the keys is not what Eq. 18 maximises
        path = [em.adapt_keys(q, k, iterations=t, **terms) for t in range(5)]
        self.rises([em.log_likelihood(q, keys, **terms).sum() for keys in path])

    def test_keys_under_a_prior_that_holds_each(self, setting):
        q, k, _, terms = self.units(setting)
        terms["magnitude_prior"] = False
        theta = draw(*k.shape[:3], seed=8).exp()

        def posterior(keys):
            return em.log_likelihood(q, keys, **terms).sum() - (theta / 2 * (keys - k).square().sum(-1)).sum()

        given = {"prior_precision": theta, "anchor": "initial"}
        self.rises([posterior(em.adapt_keys(q, k, iterations=t, **given, **terms)) for t in range(5)])

    def test_precisions(self, setting):
        q, k, _, terms = self.units(setting)
        terms["magnitude_prior"] = False
        path = [em.log_likelihood(q, k, **terms).sum()]
        for _ in range(4):  # a flat prior, so that the likelihood alone is raised
            terms["alpha"] = em.adapt_precisions(q, k, shape=1.0, rate=1e-12, **terms)
            path.append(em.log_likelihood(q, k, **terms).sum())
        self.rises(path)

    @pytest.mark.parametrize("of_units", [False, True])
    def test_values(self, setting, of_units):
        q, k, v, terms = self.units(setting)
        beta = draw(*k.shape[:3], seed=4).exp() if of_units else 1.5
        path = [em.infer_values(q, k, v, beta=beta, iterations=t, **terms) for t in range(1, 6)]
        self.rises([em.log_likelihood(q, k, v=v, v_given=value, beta=beta, **terms) for value in path])

    @pytest.mark.parametrize("kind", PENALTIES)
    def test_penalised_values(self, setting, kind):
        q, k, v, terms = self.units(setting)
        model, eps, gamma, delta = joint(q, k, **terms), 0.05, 2.0, 0.8
        weights = model.scores(slice(None)).softmax(-1)

        def objective(z):
            """The sum over j of w_ij rho(d_ij), where rho' is d times the weight, by quadrature."""
            distances = squared(z, v).sqrt()
            t = torch.linspace(0, 1, 4001, dtype=torch.float64) * distances[..., None]
            d = t + eps
            w = {"l1": 1 / d, "mcp": (1 / d - 1 / gamma).clamp(min=eps), "huber": (delta / d).clamp(max=1)}[kind]
            return (weights * torch.trapezoid(w * t, t, dim=-1)).sum(-1)

        penalty = Penalty(kind, eps, gamma, delta)
        path = [-objective(infer_robust_values(model, v, penalty, steps)) for steps in range(4)]
        assert (torch.stack(path).diff(dim=0) > -1e-6).all()  # of quadrature
        assert (path[1] - path[0]).max() > 1e-4


class TestObjectives:
    @settings(max_examples=15, deadline=None)
    @given(
        number=st.integers(1, 9),
        width=st.integers(1, 6),
        size=st.sampled_from([0.1, 1.0, 10.0]),
        seed=st.integers(0, 9),
    )
    def test_the_l1_objective_falls_with_each_step(self, number, width, size, seed):
        q, k, v = (draw(1, 1, number, width, seed=seed + i, scale=size) for i in range(3))
        weights = (q @ k.mT * width**-0.5).softmax(-1)
        found = []
        for steps in range(6):
            mixer = az.create_mixer("Pro", width, 1, steps=steps, eps=1e-12, dtype=torch.float64)
            found.append((weights * squared(mixer.mix(q, k, v), v).sqrt()).sum(-1))
        assert (torch.stack(found).diff(dim=0) < 1e-9 * max(1, size)).all()

    @settings(max_examples=15, deadline=None)
    @given(
        number=st.integers(1, 9),
        width=st.integers(1, 6),
        size=st.sampled_from([0.1, 1.0, 10.0]),
        seed=st.integers(0, 9),
    )
    def test_hopfield_s_energy_falls_with_each_step(self, number, width, size, seed):
        q, k = (draw(1, 1, number, width, seed=seed + i, scale=size) for i in range(2))
        scale = width**-0.5
        path = [em.adapt_queries(q, k, alpha=scale, iterations=steps) for steps in range(6)]
        energy = [-(scale * x @ k.mT).logsumexp(-1) / scale + x.square().sum(-1) / 2 for x in path]
        assert (torch.stack(energy).diff(dim=0) < 1e-9 * max(1, size**2)).all()


def vit(mixer, depth=3, **options):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=H * D, depth=depth, num_heads=H, num_classes=4
    )
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(20)  # so that the weights of attention differ
    return az.swap_mixers(model, mixer, **options).double().eval()


class TestLayers:
    """Elliptical layers compare their values with those of the layer before."""

    def layers(self, model):
        return [block.attn for block in model.blocks]

    def naive(self, model, images):
        """The model's logits with the metric of every layer by hand, as the released layer computes it."""
        x, last = model._pos_embed(model.patch_embed(images)), None
        for block in model.blocks:
            q, k, v = block.attn.project(block.norm1(x))
            metric = torch.ones(()) if last is None else (v - last).abs().mean(2, keepdim=True) / 5
            metric = (metric / metric.amax(-1, keepdim=True)).detach() if last is not None else metric
            mixed, last = ((q * metric) @ k.mT * SCALE).softmax(-1) @ v, v
            x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        return model.forward_head(model.norm(x))

    def test_naive_twin(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        same(model(images), self.naive(model, images), list(model.parameters()))
        plain = vit("DotProduct")
        plain.load_state_dict(model.state_dict())
        assert (plain(images) - model(images)).abs().max() > 1e-4
        assert_close(model(images), model(images), rtol=0, atol=0)

    def test_built_with_it(self):
        args = {"img_size": 32, "patch_size": 8, "embed_dim": H * D, "depth": 3, "num_heads": H, "num_classes": 4}
        built = timm.models.VisionTransformer(**args, attn_layer=az.attn_layer("Elliptical")).double().eval()
        swapped, images = vit("Elliptical"), draw(2, 3, 32, 32)
        built.load_state_dict(swapped.state_dict())
        assert_close(built(images), swapped(images), rtol=0, atol=0)

    def test_samples_do_not_meet_and_another_batch_follows(self):
        model, images = vit("Elliptical"), draw(3, 3, 32, 32)
        assert_close(model(images)[1:2], model(images[1:2]), **exactly)

    def test_a_layer_by_itself_is_dot_product(self):
        model = vit("Elliptical")
        model(draw(2, 3, 32, 32))
        q, k, v = heads()
        for layer in self.layers(model):
            assert_close(layer.mix(q, k, v), softmax(q, k) @ v, **exactly)

    def test_values_that_did_not_change_count_alike(self):
        model = vit("Elliptical", depth=2)
        first, second = self.layers(model)
        q, k, v = heads()
        first.mix(q, k, v)
        assert_close(second.mix(q, k, v), softmax(q, k) @ v, **exactly)

    def test_copies_hand_on_among_themselves(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        logits = model(images)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_close(twin(images), logits, rtol=0, atol=0)
            assert self.layers(twin)[1].before is self.layers(twin)[0].onward
            assert self.layers(twin)[1].before is not self.layers(model)[1].before

    def test_other_layers_between_are_passed_over(self):
        model = vit("DotProduct", layers={"0": "Elliptical", "2": "Elliptical"})
        first, _, third = self.layers(model)
        assert third.before is first.onward is not None and first.before is None
        az.swap_mixers(model, layers={"0": "DotProduct"})
        assert third.before is None

    def test_checkpointed_blocks(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        plain = torch.autograd.grad(model(images).sum(), list(model.parameters()))
        model.set_grad_checkpointing(True)
        model.train()
        assert_close(torch.autograd.grad(model(images).sum(), list(model.parameters())), plain, **exactly)

    def test_compiled(self):
        model, images = vit("Elliptical", depth=2), draw(2, 3, 32, 32)
        torch.compiler.reset()
        assert_close(torch.compile(model, backend="eager")(images), model(images))

    def test_exported(self):
        model, images = vit("Elliptical", depth=2), draw(2, 3, 32, 32)
        assert_close(torch.export.export(model, (images,)).module()(images), model(images))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"prior": UnitPrior("robust"), "beta": 0.1}, "'robust' and beta=0.1"),
            ({"value_likelihood": ValueLikelihood("l1"), "beta": 0.1}, "'l1' and beta=0.1"),
            ({"value_likelihood": ValueLikelihood("l1"), "adapt": Adapt(half_steps=2)}, "half_steps=2 begun with rows"),
            ({"value_likelihood": ValueLikelihood(iterations=2)}, "iterations=2 needs beta"),
            ({"value_likelihood": ValueLikelihood(iterations=0)}, "iterations=0 must be at least 1"),
            ({"value_likelihood": ValueLikelihood(beta="learned")}, "beta='learned' needs beta above 0"),
            ({"prior": UnitPrior("robust"), "kernel": Kernel(alpha="learned")}, "kernel.alpha='fixed'"),
            ({"prior": UnitPrior("uniform"), "magnitude_prior": False}, "magnitude_prior=False and prior"),
            ({"adapt": Adapt(theta="learned")}, "theta='learned' needs key_adaptation"),
            ({"adapt": Adapt(theta="learned"), "key_adaptation": 1}, "key_prior_precision above 0"),
            ({"adapt": Adapt(queries=1), "positions": "full"}, "adapt.queries=0"),
            ({"kernel": Kernel(components=2), "positions": "full"}, "kernel.components=2"),
            ({"kernel": Kernel(components=2), "value_propagation": 1, "beta": 0.1}, "kernel.components=2"),
            (
                {"adapt": Adapt(half_steps=2), "positions": "full", "value_positions": True},
                "value_positions=True needs a softmax",
            ),
            ({"kernel": "diagonal"}, "kernel=diagonal must be Kernel options"),
        ],
    )
    def test_switches_that_do_not_fit_together(self, options, named):
        with pytest.raises(az.InputError, match=f"Probabilistic: .*{named}"):
            build("Probabilistic", grid=(1, N), **options)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Kernel(components=0),
            lambda: Kernel(alpha="constant"),
            lambda: UnitPrior("flat"),
            lambda: ValueLikelihood("l2"),
            lambda: ValueLikelihood(eps=0.0),
            lambda: Adapt(half_steps=0),
            lambda: Adapt(begin="both"),
        ],
    )
    def test_values_of_switches(self, make):
        with pytest.raises(az.InputError):
            make()

    def test_a_robust_fit_has_no_mask(self):
        mixer = build("Probabilistic", prior=UnitPrior("robust"))
        with pytest.raises(az.InputError, match="'robust' is a fit to all units"):
            mixer(draw(1, N, H * D), is_causal=True)

    def test_clicks_have_one_gaussian_a_unit(self):
        mixer = build("Probabilistic", kernel=Kernel(components=2), beta=0.1)
        with pytest.raises(az.InputError, match="value_propagation cannot be used with kernel.components"):
            mixer.set_adaptation(value_propagation=1)


@pytest.mark.parametrize("setting", ["predicted", "diagonal", "uniform"])
def test_clicks_spread_under_other_switches(setting):
    """A clicked unit takes its value, and its gradient reaches what is learned."""
    options = {
        "predicted": {"kernel": Kernel(alpha="predicted"), "adapt": Adapt(theta="predicted")},
        "diagonal": {"kernel": Kernel(metric="diagonal"), "value_likelihood": ValueLikelihood(beta="learned")},
        "uniform": {"prior": UnitPrior("predicted"), "value_likelihood": ValueLikelihood(iterations=2)},
    }[setting]
    mixer = build("Probabilistic", beta=0.1, value_propagation=1, value_prior_precision=1e-3, **options)
    q, _, v = heads(3.0)
    k = q
    values = draw(B, H, 1, D, seed=6)
    out = mixer.mix(q, k, v, az.FixedValues(torch.tensor([2]), values))
    plain = mixer.mix(q, k, v)
    near = (out[:, :, 2:3] - values).norm(dim=-1) < (plain[:, :, 2:3] - values).norm(dim=-1)
    assert near.all()
    out.square().sum().backward()
    learned = [p for name, p in mixer.named_parameters() if not name.startswith(("qkv", "proj"))]
    assert learned and all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)
