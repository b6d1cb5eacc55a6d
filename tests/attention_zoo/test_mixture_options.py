"""The switches as options: memory, precision, clicks, and what does not fit together."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import attention_zoo as az
from attention_zoo.functional import mixture
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood
from tests.attention_zoo.mixture_cases import B, D, H, N, build, draw, heads


@pytest.mark.parametrize(
    ("name", "options"),
    [("Hopfield", {"steps": 0}), ("Sinkhorn", {"iterations": 1}), ("Elliptical", {}), ("Pro", {"steps": 0})],
)
def test_maps_in_half_precision(name, options):
    mixer = az.create_mixer(name, H * D, H, dtype=torch.bfloat16, **options)
    weights = mixer.attention_map(torch.randn(B, N, H * D, dtype=torch.bfloat16))
    assert_close(weights.sum(-1), torch.ones(B, H, N))


class Largest(TorchDispatchMode):
    """Notes the largest storage that any operation returns, in entries of float64."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // 8)
        return out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Hopfield", {"steps": 2}),
        ("Sinkhorn", {"iterations": 3}),
        ("Sinkhorn", {"iterations": 2, "begin": "columns"}),
        ("Elliptical", {}),
        ("MixtureOfGaussianKeys", {}),
        ("RobustKernel", {"steps": 2}),
        ("Pro", {}),
        ("Pro", {"distance_gradient": False}),
        ("Probabilistic", {"magnitude_prior": False, "key_adaptation": 1}),
        ("Probabilistic", {"prior": UnitPrior("predicted"), "kernel": Kernel("predicted", "diagonal")}),
        ("Probabilistic", {"beta": 0.1, "value_likelihood": ValueLikelihood(iterations=3, beta="predicted")}),
    ],
)
def test_no_pass_forms_all_pairs(name, options, monkeypatch):
    """Memory grows with the tokens, forward and backward: where nothing is fused, blocks of rows are."""
    monkeypatch.setattr(mixture, "BLOCK", 20_000)
    number, layer = 300, build(name, **options)
    q, k, v = (draw(1, H, number, D, seed=seed).requires_grad_() for seed in range(3))
    with Largest() as seen:
        layer.mix(q, k, v).square().sum().backward()
    assert 0 < seen.entries < 0.2 * H * number * number
    assert all(x.grad.isfinite().all() for x in (q, k, v))


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
