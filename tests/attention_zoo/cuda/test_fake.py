"""Every mixer, model, training step and attack on a CUDA device that is not there: see `fake`."""

import contextlib
import types
from typing import get_args

import pytest
import torch
from torch._subclasses import FakeTensorMode

import attention_zoo as az
from attention_zoo.functional import attention
from attention_zoo.functional.attention import attend, softmax_attention
from attention_zoo.functional.fixed_units import FixedValues
from attention_zoo.models.top_down import Mode
from tests.attention_zoo.cuda.fake import Watch, device
from tests.attention_zoo.test_mixers import ACTIVE, MASKED
from tests.attention_zoo.test_models import KINDS, SIZE, build

SELF = az.list_mixers("self")
CROSS = az.list_mixers("cross")
DIM, HEADS, SIDE = 64, 2, 64
N = SIDE * SIDE
HALF = (torch.bfloat16, torch.float16)
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
FORMS_THE_MATRIX = {"SigmoidAttention", "Sparsifier"}
"""Readings with a matrix of all pairs of tokens: torch has no fused kernel for a sigmoid, and the guess is a matrix."""
IN_BLOCKS = {"Pro"}
"""Readings that compute all pairs of tokens block by block, so that what is allocated grows like the pairs."""
LINEAR = 18
"""The most that memory of 16 times the tokens may grow by, if it grows like their number; pairs are 256 times."""
KERNELS = {
    "flash": {"BiLevelRouting", "CRATE", "Differential", "DotProduct", "Probabilistic", "Routing", "Twicing"},
    "masked": {"Agent", "Neighborhood", "Sparsifier", "VariedSizeWindow", "Window"},
    "precise": {
        *("Cluster", "DoublyNormalized", "Elliptical", "EnergyTransformer", "Hopfield", "KMeans", "Kuramoto"),
        *("MixtureOfGaussianKeys", "Pro", "Reversed", "RobustKernel", "RobustPCA", "Sinkhorn"),
    },
    "none": {
        *("ChannelAttention", "CrossCovariance", "FocalModulation", "GatedConv", "GlobalFilter", "Linear"),
        *("Performer", "Primal", "SigmoidAttention", "ToST", "VarsD", "VarsS", "VarsSD"),
    },
}
"""Which fused kernel a mixer takes: in half precision "flash", or for what is added to its scores the memory-efficient
one ("masked"); that one in float32 whatever the tokens' type, for a normaliser that half precision does not hold
("precise"); or none, as it has no softmax over tokens."""


def taken(name, dtype):
    """Return the (kernel, type) that a mixer hands tokens of a type to."""
    (way,) = (way for way, names in KERNELS.items() if name in names)
    if way == "none":
        return set()
    if way == "precise" or dtype == torch.float32:
        return {("efficient", torch.float32)}
    return {("flash" if way == "flash" else "efficient", dtype)}


def types_of(name):
    """Return the types of tokens that a mixer computes with in ways of their own."""
    return (torch.bfloat16,) if name in KERNELS["precise"] else (torch.float32, torch.bfloat16)


def create(name, side=SIDE, **options):
    return az.create_mixer(name, DIM, HEADS, grid=(side, side), device="cuda", **options)


def tokens(dtype=torch.float32, batch=1, side=SIDE):
    return torch.randn(batch, side * side, DIM, device="cuda", dtype=dtype)


def cast(dtype):
    return torch.autocast("cuda", dtype) if dtype else contextlib.nullcontext()


def test_every_mixer_has_a_place_in_the_table():
    assert sorted(SELF) == sorted(name for names in KERNELS.values() for name in names)


@pytest.mark.parametrize("name", SELF)
class TestEveryMixer:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_kernel_and_memory_at_196_and_3136_tokens(self, monkeypatch, name, dtype):
        """What is allocated, and what is held at once, grow like the tokens; so neither grows like their pairs."""
        watches = []
        for side in (14, 56):
            with device(monkeypatch) as gpu:
                mixer, n = create(name, side, dtype=dtype), side * side
                with Watch() as watch:
                    out = mixer(tokens(dtype, side=side))
            assert (out.device.type, out.dtype, out.shape) == ("cuda", dtype, (1, n, DIM))
            assert gpu.kernels.taken == taken(name, dtype)
            watches.append(watch)
        few, many = watches
        assert (many.largest >= n * n) == (name in FORMS_THE_MATRIX), many.largest_by
        pairs = FORMS_THE_MATRIX | IN_BLOCKS
        assert (many.total > LINEAR * few.total) == (name in pairs), f"{few.total} and {many.total} bytes"
        assert (many.peak > LINEAR * few.peak) == (name in pairs), f"{few.peak} and {many.peak} bytes at once"

    def test_autocast(self, monkeypatch, name):
        dtype = torch.float16
        with device(monkeypatch) as gpu:
            mixer = create(name, qkv_bias=True)
            with Watch() as watch, cast(dtype):
                out = mixer(tokens())
        # regions that do not divide this grid of 64 x 64 are padded, which a mask says
        expected = {("efficient", dtype)} if name == "BiLevelRouting" else taken(name, dtype)
        assert gpu.kernels.taken == expected
        kept = isinstance(mixer.proj, torch.nn.Identity)
        assert (out.device.type, out.dtype) == ("cuda", torch.float32 if kept else dtype)
        assert (watch.largest >= N * N) == (name in FORMS_THE_MATRIX), watch.largest_by


MASKS = {
    "keys": lambda: torch.rand(2, 1, 1, N, device="cuda") > 0.5,
    "additive, of keys": lambda: torch.randn(2, 1, 1, N, device="cuda"),
    "pairs": lambda: torch.rand(N, N, device="cuda") > 0.5,
    "pairs, of all samples and heads": lambda: torch.randn(N, N, device="cuda").expand(2, HEADS, N, N),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", MASKED)
def test_a_mask_is_not_repeated_for_samples_and_heads(monkeypatch, name, kind):
    most = N * N if kind.startswith("pairs") else N * N - 1
    most *= 2 if name == "MixtureOfGaussianKeys" else 1  # which has two units for each token
    for dtype in types_of(name):
        with device(monkeypatch) as gpu:
            mixer, x, mask = create(name, dtype=dtype), tokens(dtype, batch=2), MASKS[kind]()
            with Watch() as watch:
                out = mixer(x, attn_mask=mask)
        assert (out.device.type, out.dtype) == ("cuda", dtype)
        assert gpu.kernels.taken == {("efficient", of) for _, of in taken(name, dtype)}
        assert watch.largest <= most or name in FORMS_THE_MATRIX, watch.largest_by


WHO_READS_WHOM = {
    "causal": lambda: {"is_causal": True},
    "causal, and keys": lambda: {"is_causal": True, "attn_mask": torch.rand(2, 1, 1, N, device="cuda") > 0.5},
    "causal, and keys, additive": lambda: {"is_causal": True, "attn_mask": torch.randn(2, 1, 1, N, device="cuda")},
    "keys": lambda: {"attn_mask": torch.rand(2, 1, 1, N, device="cuda") > 0.5},
    "all": dict,
}
"""What may be said of who reads whom without a matrix of queries and keys."""


@pytest.mark.parametrize("kind", [kind for kind in WHO_READS_WHOM if "causal" in kind])
@pytest.mark.parametrize("name", MASKED)
def test_causality_is_no_matrix(monkeypatch, name, kind):
    for dtype in types_of(name):
        with device(monkeypatch) as gpu:
            mixer, x, who = create(name, dtype=dtype), tokens(dtype, batch=2), WHO_READS_WHOM[kind]()
            with Watch() as watch:
                out = mixer(x, **who)
        assert (out.device.type, out.dtype) == ("cuda", dtype)
        assert (watch.largest >= N * N) == (name in FORMS_THE_MATRIX), watch.largest_by
        kernels = taken(name, dtype)
        assert gpu.kernels.taken == ({("efficient", of) for _, of in kernels} if "keys" in kind else kernels)


NEAR = [
    {"window": 3},
    {"distance_precision": 0.1},
    {"window": 3, "distance_precision": 0.1, "key_adaptation": 1, "precision_adaptation": 1},
]


@pytest.mark.parametrize("kind", WHO_READS_WHOM)
@pytest.mark.parametrize("options", NEAR, ids=lambda options: "-".join(options))
def test_places_are_no_matrix(monkeypatch, options, kind):
    with device(monkeypatch) as gpu:
        mixer, x, who = create("Probabilistic", **options), tokens(batch=2), WHO_READS_WHOM[kind]()
        with Watch() as watch:
            mixer(x, **who)
    assert watch.largest < N * N, watch.largest_by
    assert gpu.kernels.taken == {("efficient", torch.float32)}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", MASKED)
def test_a_mask_under_autocast(monkeypatch, name, dtype):
    with device(monkeypatch):
        mixer, x = az.create_mixer(name, DIM, HEADS, grid=(7, 9), device="cuda"), torch.randn(2, 63, DIM, device="cuda")
        with Watch(), cast(dtype):
            out = mixer(x, attn_mask=torch.rand(63, 63, device="cuda") > 0.5)
    assert (out.device.type, out.dtype, out.shape) == ("cuda", dtype, x.shape)


@pytest.mark.parametrize(("name", "options"), ACTIVE, ids=["-".join([name, *options]) for name, options in ACTIVE])
def test_options_that_are_off_by_default(monkeypatch, name, options):
    mixer = az.create_mixer(name, DIM, HEADS, grid=(SIDE, SIDE), **options)
    with device(monkeypatch) as gpu:
        mixer, x = gpu.put(mixer), tokens(batch=2)
        with Watch() as watch:
            out = mixer(x)
    assert out.device.type == "cuda"
    if options.get("positions") != "full":  # which are an embedding of each pair
        assert watch.largest < N * N, watch.largest_by


@pytest.mark.parametrize("masked", [False, True])
def test_clicks_spread_on_the_device(monkeypatch, masked):
    with device(monkeypatch):
        adapts = {"value_precision_prior": (2.0, 1.0), "mixing_concentration": 1.5}
        mixer = create("Probabilistic", beta=0.1, value_propagation=2, key_adaptation=1, **adapts)
        q, k, v = torch.randn(3, 2, HEADS, N, DIM // HEADS, device="cuda").unbind()
        index, there = torch.randint(N, (2, 5), device="cuda"), torch.rand(2, 5, device="cuda") > 0.5
        fixed = FixedValues(index, torch.randn(2, HEADS, 5, DIM // HEADS, device="cuda"), there if masked else None)
        with Watch() as watch:
            assert mixer.mix(q, k, v, fixed).shape == v.shape
        assert watch.largest < N * N, watch.largest_by


@pytest.mark.parametrize("name", CROSS)
def test_cross_mixers(monkeypatch, name):
    with device(monkeypatch):
        mixer = az.create_mixer(name, DIM, HEADS, device="cuda")
        queries, pixels = torch.randn(2, 9, DIM, device="cuda"), tokens(batch=2)
        for dtype in (None, *HALF):
            with Watch(), cast(dtype):
                moved, logits = mixer(queries, pixels)
            assert moved.shape == queries.shape and logits.shape == (2, 9, N)


def heads(n=N, d=DIM, dtype=torch.float32, e=None):
    made = {"device": "cuda", "dtype": dtype}
    return torch.randn(2, 3, n, d, **made), torch.randn(2, 3, n, d, **made), torch.randn(2, 3, n, e or d, **made)


class TestTheChoiceOfKernel:
    """What is added to the scores, type, width and the GPU's generation decide."""

    @pytest.mark.parametrize("major", [7, 9])
    @pytest.mark.parametrize("added", ["", "mask", "key_bias", "mask and key_bias"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
    def test_attend(self, monkeypatch, dtype, added, major):
        old = major < 8
        expected = {
            torch.float64: set(),
            torch.float32: {"efficient"},
            torch.bfloat16: set() if old else {"efficient" if added else "flash"},
            torch.float16: {"efficient" if added or old else "flash"},
        }[dtype]
        with device(monkeypatch, major) as gpu:
            q, k, v = heads(n=49, d=20, e=28, dtype=dtype)
            key_bias = torch.randn(2, 3, 49, device="cuda", dtype=dtype) if "key_bias" in added else None
            mask = torch.randn(49, 49, device="cuda") if "mask" in added else None
            with Watch():
                out, lse = attend(q, k, v, 0.3, key_bias=key_bias, mask=mask)
            assert (out.shape, lse.shape) == ((2, 3, 49, 28), (2, 3, 49))
            assert gpu.kernels.names == expected
            ways = [way for _, way, *_ in gpu.kernels.calls]
            assert ways == (["forward", "backward"] if expected else [])

    @pytest.mark.parametrize("masked", [False, True])
    def test_a_bias_of_keys_may_have_a_wider_type(self, monkeypatch, masked):
        with device(monkeypatch) as gpu:
            q, k, v = heads(n=49, d=20, dtype=torch.bfloat16)
            mask = torch.randn(49, 49, device="cuda") if masked else None
            out, _ = attend(q, k, v, 0.3, key_bias=torch.randn(2, 3, 49, device="cuda"), mask=mask)
            assert (out.dtype, gpu.kernels.names) == (torch.bfloat16, {"efficient"})

    @pytest.mark.parametrize(("keys", "kernel"), [(49, "flash"), (63, "efficient")])
    def test_causality(self, monkeypatch, keys, kernel):
        """The flash kernel lines up the last query with the last key, torch the first with the first."""
        with device(monkeypatch) as gpu:
            (q, *_), (_, k, v) = heads(n=49, dtype=torch.bfloat16), heads(n=keys, dtype=torch.bfloat16)
            attend(q, k, v, 0.3, is_causal=True)
            assert gpu.kernels.names == {kernel}

    @pytest.mark.parametrize(
        ("width", "kernel"), [(64, "flash"), (184, "flash"), (185, "efficient"), (300, "efficient")]
    )
    def test_width(self, monkeypatch, width, kernel):
        with device(monkeypatch) as gpu:
            attend(*heads(n=32, d=width, dtype=torch.bfloat16), 0.3)
            assert gpu.kernels.names == {kernel}

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    @pytest.mark.parametrize("width", [20, 25, 64])
    def test_torch_never_takes_the_formula(self, monkeypatch, width, dtype):
        with device(monkeypatch) as gpu:
            q, k, v = heads(n=49, d=width, dtype=dtype)
            for mask in (None, torch.rand(49, 49, device="cuda") > 0.5, torch.rand(49, 1, device="cuda").to(dtype)):
                for is_causal in (False, True):
                    with Watch():
                        assert softmax_attention(q, k, v, mask, is_causal=is_causal).shape == v.shape
            assert "math" not in gpu.kernels.names

    def test_more_windows_than_a_launch_has_blocks(self, monkeypatch):
        with device(monkeypatch) as gpu:
            mixer = az.create_mixer("Window", 24, 6, grid=(256, 256), window=2, device="cuda")
            assert mixer(torch.randn(1, 256 * 256, 24, device="cuda")).shape == (1, 256 * 256, 24)
            assert all(max(shape[:2]) <= attention.MOST_BLOCKS for _, _, shape, _ in gpu.kernels.calls)


COMPILED = ("Probabilistic", "DotProduct", "DoublyNormalized", "Twicing", "Window")
"""Mixers that between them take every branch of `functional.attention`; the first of them alone takes most."""


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "Probabilistic" else pytest.mark.slow) for name in COMPILED]
)
def test_one_graph_on_the_device(monkeypatch, name, dtype):
    torch.compiler.reset()
    properties = types.SimpleNamespace(major=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    options = {"Probabilistic": {"key_adaptation": 1, "window": 3}, "Window": {"window": 4}}.get(name, {})
    with FakeTensorMode(allow_non_fake_inputs=True):
        mixer = az.create_mixer(name, 40, 2, grid=(7, 9), device="cuda", dtype=dtype, **options)
        x, mask = torch.randn(2, 63, 40, device="cuda", dtype=dtype), torch.rand(63, 63, device="cuda") > 0.5
        masks = [{"attn_mask": mask}, {"attn_mask": mask[0], "is_causal": True}] if name in MASKED else [{}]
        for of in masks:
            out = torch.compile(mixer, backend="eager", fullgraph=True)(x, **of)
            assert (out.device.type, out.dtype, out.shape) == ("cuda", dtype, x.shape)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("name", [*KINDS, *get_args(Mode)])
def test_models(monkeypatch, name, dtype):
    wide = {"embed_dim": 32} if name == "fan_tiny" else {}  # timm's class attention wants heads of a multiple of 8
    if name in KINDS:
        model = build(name, **wide)
    else:
        model = az.TopDown(build("deit_conv_tiny_patch16_224", mixer="DotProduct"), mode=name)
    with device(monkeypatch) as gpu:
        model = gpu.put(model.train())
        images = torch.randn(2, 3, *SIZE, device="cuda")
        with Watch(), cast(dtype):
            out = model(images)
        logits = out.logits if isinstance(out, az.Outputs) else out
        assert (logits.device.type, logits.shape) == ("cuda", (2, 5))
