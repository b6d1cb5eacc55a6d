"""On a real GPU: every mixer against float64 on the CPU, gradients, determinism, memory, streams, graphs."""

import copy
import gc

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis.timing import peak_memory
from attention_zoo.functional.attention import attend
from tests.attention_zoo.test_mixers import ACTIVE, MASKED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here; test_fake stands in")
VARIANTS = [(name, {}) for name in az.list_mixers("self")] + ACTIVE
every = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=["-".join([name, *options]) for name, options in VARIANTS]
)
DIM, HEADS, GRID = 40, 2, (9, 13)
"""A width of 20 a head, which kernels have to be padded for, and a number of tokens that is no multiple of 8."""


def create(name, options):
    torch.manual_seed(0)
    small = {"window": 4} if name == "Window" else {"kernel": 5} if name == "Neighborhood" else {}
    mixer = az.create_mixer(name, DIM, HEADS, grid=GRID, **(small | options))
    if name == "VariedSizeWindow":  # begins at whole pixels, where what is read between them has a kink
        for parameter in (*mixer.offsets.parameters(), *mixer.scales.parameters()):
            torch.nn.init.normal_(parameter, std=0.02)
    return mixer


def tokens(batch=3):
    return torch.randn(batch, GRID[0] * GRID[1], DIM, generator=torch.Generator().manual_seed(1))


def run(mixer, x, **masks):
    """Output, and gradients by the tokens and all parameters."""
    x = x.detach().requires_grad_()
    out = mixer(x, **masks)
    wanted = [x, *(parameter for parameter in mixer.parameters() if parameter.requires_grad)]
    gradients = torch.autograd.grad(out.double().sin().sum(), wanted, allow_unused=True)
    return out, *(torch.zeros(()) if gradient is None else gradient for gradient in gradients)


def assert_near(found, expected, most):
    """Errors are below ``most``, relative to the length of each tensor, or to 1e-5 of the longest one's.

    A gradient so much shorter than others is what is left of sums that cancel.
    """
    least = 1e-5 * max(b.detach().norm() for b in expected)
    for a, b in zip(found, expected, strict=True):
        error = (a.detach().cpu().double() - b).norm() / b.norm().clamp(min=least)
        assert error < most


@every
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_output_and_gradients(name, options, dtype, most):
    mixer = create(name, options)
    if name == "Differential":  # its λ is in float32 whatever the type, as in timm
        most = max(most, 1e-6)
    expected = run(copy.deepcopy(mixer).double(), tokens().double())
    assert_near(run(mixer.to("cuda", dtype), tokens().to("cuda", dtype)), expected, most)


@every
@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_autocast(name, options, dtype, most):
    mixer = create(name, options)
    expected = mixer.double()(tokens().double())
    with torch.autocast("cuda", dtype):
        out = mixer.float().cuda()(tokens().cuda())
    assert_near([out], [expected], most)


@pytest.mark.parametrize("kind", ["keys", "pairs"])
@pytest.mark.parametrize("name", MASKED)
def test_masks(name, kind):
    mixer, number = create(name, {}), GRID[0] * GRID[1]
    shape = (3, 1, 1, number) if kind == "keys" else (number, number)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    expected = run(copy.deepcopy(mixer).double(), tokens().double(), attn_mask=mask)
    assert_near(run(mixer.cuda(), tokens().cuda(), attn_mask=mask.cuda()), expected, 1e-3)


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in MASKED), ("Probabilistic", {"window": 3, "distance_precision": 0.1})]
)
def test_causality_and_windows(name, options, keys):
    """Where the first keys are forbidden, so that the first tokens read nothing."""
    mixer, number = create(name, options), GRID[0] * GRID[1]
    mask = torch.rand(3, 1, 1, number, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[..., :5] = False
    masks = {"is_causal": True, "attn_mask": mask if keys else None}
    expected = run(copy.deepcopy(mixer).double(), tokens().double(), **masks)
    masks["attn_mask"] = mask.cuda() if keys else None
    assert_near(run(mixer.cuda(), tokens().cuda(), **masks), expected, 1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        assert_near([mixer(tokens().cuda(), **masks)], expected[:1], 0.3)


@pytest.mark.slow
@every
def test_one_graph(name, options):
    mixer = create(name, options).cuda()
    expected = run(mixer, tokens().cuda())
    torch.compiler.reset()
    assert_close(run(torch.compile(mixer, fullgraph=True), tokens().cuda()), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_deterministic_where_it_is_asked_for(monkeypatch, name):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mixer = create(name, {}).cuda()
    torch.use_deterministic_algorithms(True)  # under warn_only the memory-efficient kernel stays as it is
    try:
        results = [run(mixer, tokens().cuda()) for _ in range(3)]
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        pytest.skip(str(error).partition(".")[0])  # torch refuses rather than be another run's
    finally:
        torch.use_deterministic_algorithms(False)
    for again in results[1:]:
        assert_close(again, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("added", ["nothing", "key_bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_grows_with_the_tokens(dtype, added):
    def training_bytes(number):
        made = {"device": "cuda", "dtype": dtype, "requires_grad": True}
        q, k, v = (torch.randn(1, 2, number, 64, **made) for _ in range(3))
        bias = torch.randn(1, 2, number, **made) if added == "key_bias" else None

        def call():
            out, lse = attend(q, k, v, 0.125, key_bias=bias)
            (out.sum() + lse.sum()).backward()

        call()
        return peak_memory(call, "cuda")

    assert training_bytes(16_384) < 5 * training_bytes(4_096)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_steps_leave_no_memory_behind(name):
    mixer, x = create(name, {}).cuda(), tokens().cuda()
    held = []
    for _ in range(9):
        run(mixer, x)
        gc.collect()
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    # now and then autograd's own thread lets go of a tensor after the step, so the least of several is compared
    assert min(held[5:]) == min(held[1:5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_a_bias_of_keys_in_half_precision(dtype, masked):
    """Its backward pass reads what is handed over by strides of its own, see `tests.attention_zoo.cuda.kernels`."""
    made = {"device": "cuda", "dtype": dtype}
    q, k, v = (torch.randn(5, 3, 196, 64, **made, requires_grad=True) for _ in range(3))
    key_bias = torch.randn(5, 3, 196, **made, requires_grad=True)
    mask = torch.rand(196, 196, device="cuda").masked_fill(torch.rand(196, 196, device="cuda") > 0.7, -torch.inf)
    found = []
    for there in (torch.device("cuda"), torch.device("cpu")):
        kind = dtype if there.type == "cuda" else torch.float64
        inputs = [x.detach().to(there, kind).requires_grad_() for x in (q, k, v, key_bias)]
        out, lse = attend(*inputs[:3], 0.125, key_bias=inputs[3], mask=mask.to(there) if masked else None)
        found.append((out, lse, *torch.autograd.grad(out.double().sin().sum() + lse.double().cos().sum(), inputs)))
    assert_near(*found, 0.05)


@pytest.mark.parametrize("name", MASKED)
def test_masks_under_autocast(name):
    mixer, x = create(name, {}).eval(), tokens()
    mask = torch.rand(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(2)) > 0.3
    expected = run(copy.deepcopy(mixer).double(), x.double(), attn_mask=mask)
    with torch.autocast("cuda", torch.bfloat16):
        found = run(mixer.cuda(), x.cuda(), attn_mask=mask.cuda())
    assert_near(found[:2], expected[:2], 0.3)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_two_streams_at_once(name):
    mixer = create(name, {}).cuda().eval()
    inputs = [tokens().cuda(), -tokens().cuda()]
    with torch.no_grad():
        expected = [mixer(x) for x in inputs]
        torch.cuda.synchronize()
        streams, found = [torch.cuda.Stream() for _ in inputs], []
        for stream, x in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                found.append(mixer(x))
        torch.cuda.synchronize()
    assert_close(found, expected)
