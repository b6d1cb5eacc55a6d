"""Sparse reconstruction with a gradient by hand, against the iteration step by step under autograd."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import solution, unrolled
from attention_zoo.functional.dictionaries import Atoms, Joined, Kernels, PrefixMeans, Union, UnitAtoms
from attention_zoo.functional.operators import operators
from attention_zoo.functional.sparse import Lista
from attention_zoo.mixers.vars.lista import SparseReconstruction

HEADS, WIDTH = 2, 3
NARROW = {"rtol": 1e-12, "atol": 1e-12}


def leaf(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def problem(parts, grid, prefix, size, number=2, batch=3, dtype=torch.float64):
    """Values and learned tensors, and a function that makes P and A of these tensors."""
    torch.manual_seed(0)
    tokens, atoms = prefix + grid[0] * grid[1], 4
    kernels = [leaf(HEADS, number, size, size, dtype=dtype) for _ in range(2)]
    weights = leaf(batch, HEADS, tokens, atoms, dtype=dtype)
    gamma = leaf(atoms, atoms, dtype=dtype)
    step, threshold = ((torch.rand(batch, HEADS, 1, 1, dtype=dtype) / 10).requires_grad_() for _ in range(2))
    values = leaf(batch, HEADS, tokens, WIDTH, dtype=dtype)

    def dictionaries(first, second, weights, gamma):
        pairs = {
            "kernels": tuple(Kernels(k, grid, prefix) for k in (first, second)),
            "means": (PrefixMeans(prefix, grid[0] * grid[1]),) * 2,
            "features": (UnitAtoms(weights.exp()), UnitAtoms(weights.exp()).mixed(gamma)),
        }
        chosen = [pairs[part] for part in parts]
        return Union(*(own for own, _ in chosen)), Joined(*(other for _, other in chosen))

    return (values, step, threshold, *kernels, weights, gamma), dictionaries


def by_hand(steps, dictionaries):
    return lambda v, step, threshold, *rest: unrolled.unrolled(v, step, threshold, steps, *dictionaries(*rest))


def step_by_step(steps, dictionaries):
    def reconstructed(v, step, threshold, *rest):
        dictionary, mixed = dictionaries(*rest)
        contract = lambda u: u - step * mixed.encode(mixed.decode(u))  # noqa: E731
        lista = Lista(contract, dictionary.encode(v), threshold / step, step, steps)
        return dictionary.decode(lista.solve())

    return reconstructed


CASES = [
    (("kernels",), (5, 4), 0, 3, 3),
    (("kernels",), (1, 1), 0, 5, 2),
    (("kernels",), (3, 13), 0, 5, 1),
    (("kernels",), (9, 2), 0, 7, 0),
    (("kernels",), (4, 6), 0, 1, 2),
    (("kernels", "means"), (3, 5), 2, 3, 3),
    (("kernels", "features"), (5, 3), 0, 3, 3),
    (("kernels", "means", "features"), (2, 7), 1, 5, 2),
    (("features",), (3, 3), 0, 1, 2),
]


@pytest.mark.parametrize(("parts", "grid", "prefix", "size", "steps"), CASES)
@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_values_and_gradients_are_those_of_the_iteration_step_by_step(
    parts, grid, prefix, size, steps, at_once, monkeypatch
):
    monkeypatch.setattr(solution, "MOST_AT_ONCE", at_once)
    inputs, dictionaries = problem(parts, grid, prefix, size)
    probe = torch.randn_like(inputs[0])
    results = []
    for function in (by_hand(steps, dictionaries), step_by_step(steps, dictionaries)):
        out = function(*inputs)
        gradients = torch.autograd.grad((out * probe).sum(), inputs, allow_unused=True, materialize_grads=True)
        results.append((out, gradients))
    assert results[0][0].abs().max() > 1e-3
    assert_close(*results, **NARROW)
    with torch.no_grad():
        assert_close(by_hand(steps, dictionaries)(*inputs), results[1][0].detach(), **NARROW)


@pytest.mark.parametrize(
    ("grid", "size", "number"), [((14, 14), 5, 5), ((1, 1), 3, 1), ((1, 9), 3, 2), ((9, 1), 5, 1), ((6, 5), 1, 3)]
)
def test_float32_takes_depthwise_convolutions_and_agrees(grid, size, number):
    inputs, dictionaries = problem(("kernels", "means"), grid, 1, size, number=number, dtype=torch.float32)
    results = []
    for function in (by_hand(3, dictionaries), step_by_step(3, dictionaries)):
        scaled = [x * factor for x, factor in zip(inputs, (1, 0.01, 0.01, 1, 1, 1, 1), strict=True)]
        out = function(*scaled)
        gradients = torch.autograd.grad(out.square().sum(), inputs[:5])
        results.append([out.detach(), *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@pytest.mark.parametrize("parts", [("kernels", "means"), ("kernels", "features")])
def test_gradients_of_gradients(parts):
    inputs, dictionaries = problem(parts, (2, 2), 1, 3, number=1, batch=1)
    used = inputs[:5] if "features" not in parts else inputs
    rest = inputs[len(used) :]
    function = by_hand(2, dictionaries)
    assert torch.autograd.gradcheck(lambda *x: function(*x, *rest), used, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: function(*x, *rest), used, fast_mode=True)


def test_functional_transforms():
    inputs, dictionaries = problem(("kernels",), (2, 3), 0, 3)
    function = by_hand(2, dictionaries)
    expected = torch.autograd.grad(function(*inputs).square().sum(), inputs[0])[0]
    held = [x.detach() for x in inputs]
    assert_close(torch.func.grad(lambda v: function(v, *held[1:]).square().sum())(held[0]), expected, **NARROW)


@pytest.mark.parametrize("frozen", range(5))
def test_what_is_frozen_has_no_gradient_and_changes_no_other(frozen):
    inputs, dictionaries = problem(("kernels",), (3, 4), 0, 3)
    function = by_hand(2, dictionaries)
    expected = list(torch.autograd.grad(function(*inputs).square().sum(), inputs[:5]))
    held = [x.detach() if i == frozen else x for i, x in enumerate(inputs)]
    left = [x for i, x in enumerate(held[:5]) if i != frozen]
    del expected[frozen]
    assert_close(torch.autograd.grad(function(*held).square().sum(), left), tuple(expected), **NARROW)


def test_codes_of_a_step_are_kept_once(monkeypatch):
    """What the gradient keeps is the codes of each step and little else."""
    inputs, dictionaries = problem(("kernels",), (16, 16), 0, 3, number=8, batch=1, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        by_hand(3, dictionaries)(*inputs)
    codes = 8 * 16 * 16 * HEADS * WIDTH
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    assert 4 * codes * 4 <= sum(storages.values()) <= 5 * codes * 4


def test_a_dictionary_without_an_operator_is_named():
    with pytest.raises(TypeError, match="Spectra has no operator"):
        operators(az.functional.dictionaries.Spectra.__new__(az.functional.dictionaries.Spectra), 1, 1)


def test_atoms_of_any_scale():
    weights = torch.randn(1, HEADS, 5, 4)
    (operator,) = operators(Atoms(weights), HEADS, WIDTH)
    assert_close(operator.weights, weights)


class TestMixers:
    @pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
    @pytest.mark.parametrize(("grid", "prefix"), [((13, 12), 0), ((3, 5), 1)])
    def test_all_ways_agree(self, name, grid, prefix, monkeypatch):
        torch.manual_seed(0)
        mixer = az.create_mixer(name, 12, HEADS, grid=grid, num_prefix_tokens=prefix, dtype=torch.float64, lam=0.1)
        x = leaf(2, prefix + grid[0] * grid[1], 12)
        results = []
        for fewest, tabulated in ((0, 0), (10**6, 0), (10**6, 10**6)):
            monkeypatch.setattr(SparseReconstruction, "fewest_unrolled", fewest)
            monkeypatch.setattr(SparseReconstruction, "most_tabulated", tabulated)
            out = mixer(x)
            results.append((out, torch.autograd.grad(out.square().sum(), [x, *mixer.parameters()])))
        assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
        assert_close(results[0], results[2], rtol=1e-12, atol=1e-12)

    def test_many_tokens_on_a_cpu_are_unrolled_and_few_are_not(self):
        mixer = az.create_mixer("VarsS", 12, HEADS)
        few, many = (torch.zeros(1, HEADS, mixer.fewest_unrolled - n, 6) for n in (1, 0))
        assert not mixer.unrolls(few) and mixer.unrolls(many)
        assert not mixer.unrolls(many[:0]) and not mixer.unrolls(many.to("meta"))

    @pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
    def test_autocast_and_empty_batch(self, name):
        torch.manual_seed(0)
        mixer = az.create_mixer(name, 12, HEADS, grid=(14, 14))
        x = torch.randn(1, 196, 12, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            out = mixer(x)
        out.float().square().sum().backward()
        assert out.dtype == torch.bfloat16 and x.grad.isfinite().all()
        assert_close(out.float(), mixer(x), rtol=0.1, atol=0.1)
        assert mixer(x[:0]).shape == (0, 196, 12)
