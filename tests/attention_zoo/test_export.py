"""Every registered mixer leaves Python by `torch.export`, for batches and tokens of any number; a whole ViT as ONNX."""

import warnings

import pytest
import timm
import torch
from torch.export import Dim
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood
from tests.mixers import CORE

DIM, HEADS = 12, 2
OPTIONS = {
    "KMeans": [{"metric": "euclidean", "reduce": "mean", "iterations": 2}],
    "Cluster": [{"metric": "euclidean", "reduce": "mean", "iterations": 2}],
    "Probabilistic": [
        {"key_adaptation": 1, "precision_adaptation": 1, "positions": "factored", "distance_precision": 0.1},
        {"key_adaptation": 1, "positions": "full", "value_positions": True, "window": 3},
        {"magnitude_prior": False, "beta": 0.1},
        {"kernel": Kernel("predicted", "diagonal", components=2), "prior": UnitPrior("predicted")},
        {"adapt": Adapt(queries=1, half_steps=2), "value_likelihood": ValueLikelihood()},
        {"value_likelihood": ValueLikelihood("l1", through_distance=True)},
    ],
    **{name: [{"variant": "released"}] for name in ("VarsD", "VarsS", "VarsSD", "Performer")},
}
VARIANTS = [(name, options) for name in az.list_mixers("self") for options in ({}, *OPTIONS.get(name, []))]
IDS = ["-".join([name, *options]) for name, options in VARIANTS]
COVERED = (
    "KMeans-metric-reduce-iterations",  # by Cluster's
    "Probabilistic-key_adaptation-precision_adaptation-positions-distance_precision",  # by the next
    "VarsD",  # by VarsSD and by its variant
    "VarsS",  # by VarsSD
    "VarsS-variant",  # by VarsD's
    "VarsSD-variant",  # by VarsD's
)
"""Those that leave Python by the same lines as others; they belong to the slow tests."""
CASES = [
    pytest.param(*variant, id=name, marks=[pytest.mark.slow] if name in COVERED or variant[0] not in CORE else [])
    for variant, name in zip(VARIANTS, IDS, strict=True)
]


def tokens(batch, number, width=DIM):
    return torch.randn(batch, number, width, generator=torch.Generator().manual_seed(batch))


def exported(module, arguments, shapes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, arguments, dynamic_shapes=shapes).module()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_self_mixers(name, options):
    mixer = az.create_mixer(name, DIM, HEADS, grid=(3, 3), **options).eval()
    grows = mixer.tokens == "set"
    shape = {0: Dim("batch"), 1: Dim("tokens")} if grows else {0: Dim("batch")}
    graph = exported(mixer, (tokens(3, 9),), (shape,))
    for batch, number in ((1, 9), (2, 9), (5, 13 if grows else 9)):
        x = tokens(batch, number)
        assert_close(graph(x), mixer(x))
    inputs = [tokens(2, 9).requires_grad_() for _ in range(2)]
    gradients = [torch.autograd.grad(m(x).square().sum(), x) for m, x in zip((graph, mixer), inputs, strict=True)]
    assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", az.list_mixers("cross"))
def test_cross_mixers(name):
    mixer = az.create_mixer(name, DIM, HEADS).eval()
    batch = Dim("batch")
    shapes = ({0: batch, 1: Dim("queries")}, {0: batch, 1: Dim("pixels")})
    graph = exported(mixer, (tokens(3, 4), tokens(3, 9)), shapes)
    for size, queries, pixels in ((1, 4, 9), (2, 5, 9), (5, 3, 13)):
        arguments = tokens(size, queries), tokens(size, pixels)
        assert_close(graph(*arguments), mixer(*arguments))


def test_axial():
    mixer = az.Axial(DIM, HEADS, grid=(3, 3), mixer="KMeans", context=2).eval()
    graph = exported(mixer, (tokens(3, 9),), ({0: Dim("batch")},))
    for batch in (1, 5):
        assert_close(graph(tokens(batch, 9)), mixer(tokens(batch, 9)))


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["VarsD", "Cluster", "Probabilistic"])
def test_a_swapped_vit_as_onnx(mixer, tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX export needs the dev extra: onnx, onnxscript")
    reference = pytest.importorskip("onnx.reference", reason="ONNX export needs the dev extra: onnx, onnxscript")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=DIM, num_heads=HEADS, num_classes=3
    )
    options = {"key_adaptation": 1} if mixer == "Probabilistic" else {}
    az.swap_mixers(model.eval(), mixer, **options)
    path, images = tmp_path / "model.onnx", torch.randn(3, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), path, dynamo=True, dynamic_shapes=({0: Dim("batch")},), verbose=False)
    session = reference.ReferenceEvaluator(str(path))
    (name,) = session.input_names
    for batch in (1, 2):
        pixels = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(None, {name: pixels.numpy()})
        assert_close(torch.from_numpy(logits), model(pixels).detach(), rtol=1e-3, atol=1e-4)
