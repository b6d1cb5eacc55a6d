"""Sparse reconstruction in compiled graphs: one operator, with values and gradients of the layer without a graph."""

import copy

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import solution, unrolled_in_graphs
from attention_zoo.functional.dictionaries import Joined, Kernels, PrefixMeans, UnitAtoms
from attention_zoo.functional.operators import operators

GRID, TOKENS = (13, 7), 92


def build(name, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, 12, 2, grid=GRID, num_prefix_tokens=1, lam=0.1, dtype=dtype, **options)


def compiled(mixer, **how):
    torch.compiler.reset()
    return torch.compile(copy.deepcopy(mixer), fullgraph=True, **{"backend": "aot_eager", **how})


def passes(mixer, x):
    """The output, and the gradients by the input and by all that is learned."""
    x = x.clone().requires_grad_()
    out = mixer(x)
    learned = [weight for weight in mixer.parameters() if weight.requires_grad]
    return out.detach(), torch.autograd.grad(out.square().sum(), [x, *learned])


class Frames:
    """A backend that counts the graphs it gets, and the operators of ours in them."""

    def __init__(self):
        self.graphs, self.ours = 0, 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        self.ours += sum("attention_zoo" in str(node.target) for node in graph.graph.nodes)
        return graph


@pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
@pytest.mark.parametrize("at_once", [1, 1 << 19])
def test_values_and_gradients_are_those_without_a_graph(name, at_once, monkeypatch):
    monkeypatch.setattr(solution, "MOST_AT_ONCE", at_once)
    mixer, x = build(name), torch.randn(3, TOKENS, 12, dtype=torch.float64)
    assert mixer.unrolls(mixer.project(x)[2])
    graph = compiled(mixer)
    assert_close(passes(graph, x), passes(mixer, x), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert_close(graph(x), mixer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
def test_the_same_by_inductor(name):
    mixer, x = build(name), torch.randn(3, TOKENS, 12, dtype=torch.float64)
    assert_close(passes(compiled(mixer, backend="inductor"), x), passes(mixer, x), rtol=1e-9, atol=1e-9)


def test_one_operator_serves_any_number_of_samples():
    mixer, frames = build("VarsS"), Frames()
    graph = compiled(mixer, backend=frames)
    for batch in (2, 5, 3, 17):
        x = torch.randn(batch, TOKENS, 12, dtype=torch.float64)
        assert_close(graph(x), mixer(x))
    assert frames.graphs == frames.ours == 2  # one for the first number of samples, one for any other


@pytest.mark.parametrize("frozen", ["qkv.weight", "kernel", "gamma", "w1"])
def test_what_is_frozen_has_no_gradient_and_changes_no_other(frozen):
    mixer, x = build("VarsSD"), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    mixer.get_parameter(frozen).requires_grad_(False)
    assert_close(passes(compiled(mixer), x), passes(mixer, x), rtol=1e-12, atol=1e-12)


def test_straight_through():
    mixer, x = build("VarsS"), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    plain = passes(mixer, x)
    mixer.straight_through = True
    found = passes(compiled(mixer), x)
    assert_close(found, passes(mixer, x), rtol=1e-12, atol=1e-12)
    assert (found[1][0] - plain[1][0]).abs().max() > 1e-3


def test_exported_graphs_have_no_operator_of_ours():
    mixer, x = build("VarsS").eval(), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    program = torch.export.export(mixer, (x,))
    assert not any("attention_zoo" in str(node.target) for node in program.graph.nodes)
    assert_close(program.module()(x), mixer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("steps", [0, 2])
def test_operators_are_what_torch_expects_of_them(keep, steps):
    """What is told of shapes, strides, what is written to and what is differentiated holds."""
    torch.manual_seed(0)
    heads, width, prefix, grid, batch = 2, 3, 1, (3, 5), 2
    kernels = torch.randn(heads, 2, 3, 3, dtype=torch.float64).requires_grad_(keep)
    atoms = UnitAtoms(torch.rand(batch, heads, 16, 4, dtype=torch.float64)).mixed(torch.eye(4, dtype=torch.float64))
    dictionary = Joined(Kernels(kernels, grid, prefix), PrefixMeans(prefix, 15), atoms)
    problem = solution.Problem(
        torch.randn(batch, 16, heads * width, dtype=torch.float64).requires_grad_(keep),
        *(torch.rand(batch, heads, dtype=torch.float64).div(10).requires_grad_(keep) for _ in range(2)),
        *(operators(dictionary, heads, width) for _ in range(2)),
    )
    given = (*unrolled_in_graphs.arguments(problem), steps, False, keep)
    torch.library.opcheck(unrolled_in_graphs._reconstruct, given)


def test_layers_of_several_grids_share_what_is_compiled():
    """The second number of tokens makes it a number that the graph does not know."""
    torch.compiler.reset()
    for grid in ((13, 7), (3, 31), (10, 10)):
        mixer = az.create_mixer("VarsS", 12, 2, grid=grid)
        x = torch.randn(2, grid[0] * grid[1], 12)
        assert_close(torch.compile(mixer, fullgraph=True, backend="eager")(x), mixer(x))
