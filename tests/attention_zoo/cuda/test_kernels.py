"""The branch of `functional.attention` for CUDA, computed by stand-ins for its kernels, against plain formulas."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.functional import attention
from attention_zoo.functional.attention import attend, attend_to_later, softmax_attention
from tests.attention_zoo.cuda.kernels import Kernels, refusal

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BATCH, HEADS = 2, 3


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def kernels(monkeypatch):
    """The kernels' stand-ins, taken by tensors of the CPU as those of CUDA take the kernels."""
    monkeypatch.setattr(attention, "_on_cuda", lambda x: True)
    choice = attention._kernel

    def chosen(q, bias):
        kernel = choice(q, bias)
        return kernel if kernel == "dense" else "flash" if bias is None else "efficient"

    monkeypatch.setattr(attention, "_kernel", chosen)
    return Kernels().install(monkeypatch)


@st.composite
def masks(draw, n, m):
    """A mask that broadcasts to (B, H, n, m), additive, in one of the layouts that a tensor can have."""
    full = (BATCH, HEADS, n, m)
    shape = [draw(st.sampled_from([1, size])) for size in full]
    shape = shape[draw(st.integers(0, 2)) :]
    mask = normal(*shape, seed=draw(st.integers(0, 9)))
    mask = mask.masked_fill(normal(*shape, seed=draw(st.integers(10, 19))) > 1, -torch.inf)
    layout = draw(st.sampled_from(["rows", "columns", "expanded", "apart", "late"]))
    if layout == "columns":
        return mask.mT.contiguous().mT
    if layout == "expanded":
        return mask.expand(*full[-mask.dim() :])
    if layout == "apart":
        return torch.stack((mask, mask), -1)[..., 0]
    if layout == "late":
        return torch.cat((mask.flatten()[:1], mask.flatten()))[1:].view(mask.shape)
    return mask


@st.composite
def problems(draw):
    n, m, d, e = (draw(st.integers(1, most)) for most in (37, 37, 11, 11))
    q, k, v = normal(BATCH, HEADS, n, d, seed=0), normal(BATCH, HEADS, m, d, seed=1), normal(BATCH, HEADS, m, e, seed=2)
    if draw(st.booleans()):  # of one tensor, as projections are, at addresses that are not aligned
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    mask = draw(masks(n, m)) if draw(st.booleans()) else None
    bias = normal(BATCH, HEADS, m, seed=3) if draw(st.booleans()) else None
    return q, k, v, bias, mask


def plain(q, k, v, bias, mask, is_causal=False):
    scores = 0.7 * q @ k.mT
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    for added in (None if bias is None else bias[..., None, :], mask):
        scores = scores if added is None else scores + added
    nothing = scores.isneginf().all(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return weights @ v, scores.masked_fill(nothing, 0.0).logsumexp(-1).masked_fill(nothing[..., 0], -torch.inf)


@quick
@given(problem=problems(), wanted=st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]), is_causal=st.booleans())
def test_values_logsumexp_and_gradients(kernels, problem, wanted, is_causal):
    kernels.calls.clear()
    *rows, bias, mask = problem
    inputs = [x.clone().requires_grad_() if x.is_contiguous() else x.detach().requires_grad_() for x in rows]
    biases = [] if bias is None else [bias.clone().requires_grad_()]
    found = []
    attended = lambda q, k, v, b, mask, is_causal: attend(q, k, v, 0.7, key_bias=b, mask=mask, is_causal=is_causal)  # noqa: E731
    for reading in (attended, plain):
        out, lse = reading(*inputs, biases[0] if biases else None, mask, is_causal)
        # what may read nothing has no logsumexp to differentiate
        total = wanted[0] * out.cos().sum() + wanted[1] * lse.masked_fill(lse.isneginf(), 0.0).sin().sum()
        found.append((out, lse, torch.autograd.grad(total, inputs + biases)))
    assert_close(*found, rtol=1e-9, atol=1e-9)
    added = bias is not None or (mask is not None and mask.shape[-1] > 1 and mask.stride(-1) > 0)
    added |= is_causal and rows[0].shape[2] != rows[1].shape[2]  # which the flash kernel lines up from the end
    assert kernels.names == {"efficient" if added else "flash"}
    assert [way for _, way, *_ in kernels.calls] == ["forward", "backward"]


@quick
@given(problem=problems(), is_causal=st.booleans())
def test_the_cpu_takes_the_same(problem, is_causal):
    *rows, bias, mask = problem
    found = attend(*rows, 0.7, key_bias=bias, mask=mask, is_causal=is_causal)
    assert_close(found, plain(*rows, bias, mask, is_causal), rtol=1e-9, atol=1e-9)


@quick
@given(n=st.integers(1, 37), kind=st.sampled_from(["none", "keys", "queries", "pairs"]), biased=st.booleans())
def test_later_keys_are_earlier_ones_from_the_end(n, kind, biased):
    q, k, v = (normal(BATCH, HEADS, n, 5, seed=seed) for seed in range(3))
    bias = normal(BATCH, HEADS, n, seed=3) if biased else None
    shape = {"keys": (BATCH, 1, 1, n), "queries": (BATCH, 1, n, 1), "pairs": (n, n)}.get(kind)
    mask = None if shape is None else normal(*shape, seed=4).masked_fill(normal(*shape, seed=5) > 0.5, -torch.inf)
    later = torch.zeros(n, n).masked_fill(~torch.ones(n, n, dtype=torch.bool).triu(), -torch.inf).double()
    found = attend_to_later(q, k, v, 0.7, key_bias=bias, mask=mask)
    assert_close(found, plain(q, k, v, bias, later if mask is None else later + mask), rtol=1e-9, atol=1e-9)


@quick
@given(problem=problems(), boolean=st.booleans(), is_causal=st.booleans())
def test_torch_is_handed_what_its_kernels_take(kernels, problem, boolean, is_causal):
    q, k, v, _, mask = problem
    if mask is not None and boolean:
        mask = mask > -torch.inf
    out = softmax_attention(q, k, v, mask, is_causal=is_causal, scale=0.7)
    bias = mask if mask is None or not boolean else torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    if is_causal:
        before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        causal = torch.zeros(before.shape, dtype=q.dtype).masked_fill(~before, -torch.inf)
        bias = causal if bias is None else bias + causal
    assert_close(out, plain(q, k, v, None, bias)[0], rtol=1e-9, atol=1e-9)
    assert kernels.calls


def test_a_mask_that_learns_gets_its_gradient(kernels):
    q, k, v = (normal(BATCH, HEADS, 7, 5, seed=seed) for seed in range(3))
    table = normal(HEADS, 7, 7, seed=4).requires_grad_()
    found = [
        torch.autograd.grad(out.square().sum(), table)
        for out in (softmax_attention(q, k, v, table, scale=0.7), plain(q, k, v, None, table)[0])
    ]
    assert_close(*found)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_more_heads_or_samples_than_a_launch_has_blocks(kernels, monkeypatch, dim, masked):
    monkeypatch.setattr(attention, "MOST_BLOCKS", 2)
    q, k, v = (normal(5, 3, 4, 8, seed=seed) for seed in range(3))
    q, k, v = (q, k, v) if dim == 0 else (x.transpose(0, 1) for x in (q, k, v))
    mask = normal(1, q.shape[1], 4, 4, seed=5) if masked else None
    assert_close(softmax_attention(q, k, v, mask, scale=0.7), plain(q, k, v, None, mask)[0])
    assert all(max(shape[:2]) <= 2 for _, _, shape, _ in kernels.calls)


def test_a_mask_is_never_expanded_over_batch_and_heads(kernels):
    mask = attention._aligned_rows(normal(7, 13, seed=0))
    bias = attention._bias(normal(2, 3, 7, 8, seed=1), normal(2, 3, 13, 8, seed=2), None, mask)
    assert bias.shape == (2, 3, 7, 13) and bias.data_ptr() == mask.data_ptr() and refusal("bias", bias) is None
    of_keys = attention._bias(normal(2, 3, 7, 8, seed=1), normal(2, 3, 13, 8, seed=2), normal(2, 3, 13, seed=3), None)
    assert of_keys.untyped_storage().nbytes() == 8 * 2 * 3 * 16 and refusal("bias", of_keys) is None


LAYOUTS = {
    "channels apart": lambda x: x.mT.contiguous().mT,
    "from an odd address": lambda x: torch.cat((x.flatten()[:1], x.flatten()))[1:].view(x.shape),
    "tokens an odd length apart": lambda x: torch.cat((x, x[..., :1]), -1)[..., :-1],
    "heads an odd length apart": lambda x: torch.cat((x.flatten(2), x[..., 0, :1]), -1)[..., :-1].view(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_any_layout_are_aligned(kernels, layout):
    rows = [normal(BATCH, HEADS, 4, 8, seed=seed) for seed in range(3)]
    moved = [LAYOUTS[layout](x) for x in rows]
    assert all(refusal("x", x) for x in moved)
    assert_close(attend(*moved, 0.7), attend(*rows, 0.7))
    assert_close(softmax_attention(*moved), softmax_attention(*rows))
    gradients = []
    for x in (moved, rows):
        inputs = [part.detach().requires_grad_() for part in x]
        out, lse = attend(*inputs, 0.7)
        probe = LAYOUTS[layout](normal(*out.shape, seed=4)) if x is moved else normal(*out.shape, seed=4)
        gradients.append(torch.autograd.grad((out, lse), inputs, (probe, torch.ones_like(lse).cos())))
    assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reading", [lambda *args: attend(*args[:3], 0.7, mask=args[3])[0], softmax_attention])
def test_the_lowest_number_of_a_wider_type_forbids(kernels, dtype, reading):
    q, k, v = (normal(BATCH, HEADS, 4, 8, seed=seed).to(dtype) for seed in range(3))
    mask = torch.zeros(4, 4)
    mask[1], mask[2, 1:] = torch.finfo(torch.float32).min, torch.finfo(torch.float32).min
    out = reading(q, k, v, mask)
    assert out[:, :, 1].abs().max() == 0
    assert_close(out[:, :, 2], v[:, :, 0])
