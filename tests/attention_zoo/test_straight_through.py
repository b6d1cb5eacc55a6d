"""Surrogates of operations that stop gradients: no value changes by a bit, and gradients are those that are stated."""

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.attacks import PGD
from attention_zoo.functional import clustering
from attention_zoo.functional.dictionaries import UnitAtoms
from attention_zoo.functional.sparse import GELU, SOFT, Lista
from attention_zoo.functional.straight_through import straight_through
from attention_zoo.functional.unrolled import unrolled
from attention_zoo.mixers.protocols import StraightThrough, passing_straight_through

STATING = {"KMeans", "RobustPCA", "Routing", "VarsD", "VarsS", "VarsSD"}


def layer(name, grid=(4, 4), **options):
    torch.manual_seed(0)
    return (az.MIXERS.get(name) or getattr(az, name))(16, 2, grid=grid, **options).eval()


def gradient_of(mixer, x, weight):
    out = mixer(x)
    return out, torch.autograd.grad((out * weight).sum(), x)[0]


def test_who_states_surrogates():
    assert {name for name in az.list_mixers("self") if isinstance(layer(name), StraightThrough)} >= STATING
    assert isinstance(az.MIXERS["KMeansCross"](16, 2), StraightThrough)
    assert not isinstance(layer("DotProduct"), StraightThrough)


@pytest.mark.parametrize("grid", [(4, 4), (10, 10)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in sorted(STATING)),
        *((name, {"variant": "released"}) for name in ("VarsD", "VarsS", "VarsSD")),
        ("KMeans", {"metric": "euclidean", "reduce": "mean", "iterations": 2}),
        ("MixtureOfHeads", {"shared": 0, "topk": 1}),
    ],
)
def test_values_stay_and_gradients_change(name, options, grid):
    mixer = layer(name, grid, **options)
    x = torch.randn(2, grid[0] * grid[1], 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    before, own = gradient_of(mixer, x, weight)
    with passing_straight_through(mixer) as stating:
        inside, surrogate = gradient_of(mixer, x, weight)
        with torch.no_grad():
            assert torch.equal(mixer(x), before)
    after, again = gradient_of(mixer, x, weight)
    assert stating == 1
    assert torch.equal(inside, before)
    assert torch.equal(after, before)
    assert torch.equal(again, own)
    assert surrogate.isfinite().all()
    assert (surrogate - own).norm() > 1e-3 * own.norm()


def test_the_context_ends_also_by_an_error():
    mixer = layer("VarsD")
    with pytest.raises(KeyError), passing_straight_through(torch.nn.Sequential(mixer)):
        assert mixer.straight_through
        raise KeyError
    assert not mixer.straight_through
    with passing_straight_through(lambda images: images) as stating:
        assert stating == 0


def test_the_value_is_one_and_the_gradient_the_others():
    x = torch.tensor([-0.0, 1.0, -3.0], requires_grad=True)
    out = straight_through(x.sign() * 0, x**2)
    assert torch.equal(out.signbit(), (x.sign() * 0).signbit())
    out.backward(torch.ones(3))
    assert_close(x.grad, 2 * x.detach())


@pytest.mark.parametrize("shrinkage", [SOFT, GELU])
def test_thresholds_pass_gradients_on(shrinkage):
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    threshold = torch.tensor(0.7, requires_grad=True)
    out = shrinkage.straight(x, threshold)
    assert torch.equal(out, shrinkage.value(x, threshold))
    by_x, by_threshold = torch.autograd.grad(out.sum(), (x, threshold))
    assert_close(by_x, torch.ones(9))
    assert_close(by_threshold, torch.tensor(0.0))  # as many on either side
    (stopped,) = torch.autograd.grad(SOFT.value(x, threshold).sum(), x)
    assert (stopped == 0).sum() == 3


def test_one_function_and_step_by_step_have_the_same_surrogate():
    generator = torch.Generator().manual_seed(0)
    values, atoms = (torch.randn(2, 3, 9, n, generator=generator).double() for n in (4, 5))
    atoms = atoms / atoms.norm(dim=2, keepdim=True)
    step, threshold = (torch.full((2, 3, 1, 1), n).double() for n in (0.2, 0.1))
    values.requires_grad_()
    atoms.requires_grad_()
    weight = torch.randn(2, 3, 9, 4, generator=generator).double()
    dictionary = UnitAtoms(atoms)
    found = unrolled(values, step, threshold, 3, dictionary, dictionary, True)

    def contract(codes):
        return codes + dictionary.encode(dictionary.decode(codes) * -step)

    codes = Lista(contract, dictionary.encode(values), threshold / step, step, 3, straight_through=True).solve()
    expected = dictionary.reconstruct(codes)
    assert_close(found, expected)
    for own, other in zip(
        torch.autograd.grad((found * weight).sum(), (values, atoms), create_graph=True),
        torch.autograd.grad((expected * weight).sum(), (values, atoms)),
        strict=True,
    ):
        assert_close(own, other)
    plain = unrolled(values, step, threshold, 3, dictionary, dictionary)
    assert (torch.autograd.grad((plain * weight).sum(), values)[0] - other.new_zeros(())).norm() > 0


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_clusters_have_the_gradient_of_a_softmax(reduce):
    generator = torch.Generator().manual_seed(0)
    affinity = torch.randn(1, 1, 4, 6, generator=generator).double()
    affinity[0, 0, 3] -= 10  # a centre that nobody chooses
    affinity.requires_grad_()
    values = torch.randn(1, 1, 6, 2, generator=generator).double().requires_grad_()
    hard = clustering.hard_assignment(affinity)
    empty = torch.full((1, 1, 4, 2), 7.0).double()
    expected = clustering.collect(values, hard, 4, reduce=reduce, empty=empty)
    assignment = clustering.straight_assignment(affinity)
    assert torch.equal(assignment, clustering.one_hot(hard, 4, torch.double))
    out = clustering.straight_collect(values, assignment, reduce=reduce, empty=empty)
    assert torch.equal(out, expected)
    weight = torch.randn(out.shape, generator=generator).double()
    by_values, by_affinity = torch.autograd.grad((out * weight).sum(), (values, affinity))
    assert_close(by_values, torch.autograd.grad((expected * weight).sum(), values)[0])
    assert by_affinity.isfinite().all()
    if reduce == "sum":
        soft = clustering.soft_assignment(affinity)
        assert_close(by_affinity, torch.autograd.grad((soft @ values.detach() * weight).sum(), affinity)[0])


def test_a_decoders_queries_get_a_gradient():
    torch.manual_seed(0)
    mixer = az.MIXERS["KMeansCross"](16, 2)
    affinity = torch.randn(2, 2, 3, 8, requires_grad=True)
    values = torch.randn(2, 2, 8, 8)
    plain = mixer.read(affinity, values)
    with passing_straight_through(mixer):
        straight = mixer.read(affinity, values)
    assert not plain.requires_grad
    assert torch.equal(straight, plain)
    assert torch.autograd.grad(straight.square().sum(), affinity)[0].abs().sum() > 0


class Stepped(torch.nn.Module):
    """A threshold without any gradient before a linear classifier, and its surrogate, the identity."""

    straight_through = False

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(48, 3)

    def forward(self, images):
        flat = images.flatten(1)
        steps = (flat * 32).round() / 32
        return self.head(straight_through(steps, flat) if self.straight_through else steps)


def test_an_attack_follows_the_surrogate():
    torch.manual_seed(0)
    model = Stepped()
    pixels = torch.rand(32, 3, 4, 4)
    label = model(pixels).argmax(1)
    plain = PGD(0.1, 0.02, 10).run(model, pixels, label)
    straight = PGD(0.1, 0.02, 10, bpda=True).run(model, pixels, label)
    assert plain.no_gradient.sum() >= 30
    assert not straight.no_gradient.any()
    assert (model(straight.pixels).argmax(1) == label).double().mean() < 0.5
    assert not model.straight_through
    assert (PGD().trusts_gradients, PGD(bpda=True).trusts_gradients) == (True, False)
    assert "bpda" not in PGD().settings
    assert PGD(bpda=True).settings["bpda"] is True


def test_without_surrogates_it_is_the_same_attack():
    torch.manual_seed(0)
    small = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **small), "DotProduct").eval()
    pixels, label = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    assert torch.equal(PGD(0.1)(model, pixels, label), PGD(0.1, bpda=True)(model, pixels, label))
