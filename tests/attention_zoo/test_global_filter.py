"""GFNet's global filter against its naive twin, its resampling and its prefix tokens."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from tests.reference import naive_vars

DIM, HEADS = 6, 2


def build(grid=None, prefix=0, **options):
    torch.manual_seed(0)
    options = {"grid": grid, "num_prefix_tokens": prefix, "dtype": torch.float64, **options}
    return az.create_mixer("GlobalFilter", DIM, HEADS, **options).eval()


def tokens(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, DIM, dtype=torch.float64, generator=generator, requires_grad=True)


@pytest.mark.parametrize(("grid", "prefix"), [((3, 5), 0), ((4, 4), 0), ((1, 6), 2), ((4, 3), 1), ((1, 1), 1)])
def test_naive_twin(grid, prefix):
    mixer, x = build(grid, prefix), tokens(prefix + grid[0] * grid[1])
    twin = naive_vars.global_filter(x, mixer.complex_weight, grid, prefix)
    results = []
    for out in (mixer(x), twin):
        results.append((out, torch.autograd.grad((out * torch.arange(DIM)).square().sum(), [x, mixer.complex_weight])))
    assert_close(*results, rtol=1e-10, atol=1e-10)


def test_spectrum_is_sized_by_the_grid_else_by_filter_size():
    assert build((4, 7)).complex_weight.shape == (4, 4, DIM, 2)
    assert build().complex_weight.shape == (14, 8, DIM, 2)
    assert build(filter_size=(6, 3)).complex_weight.shape == (6, 2, DIM, 2)


def test_another_grid_resamples_the_spectrum_corners_on_corners():
    mixer, small = build(filter_size=(8, 8)), (4, 4)
    planes = mixer.complex_weight.permute(2, 3, 0, 1)
    expected = torch.nn.functional.interpolate(planes, (4, 3), mode="bicubic", align_corners=True)
    twin = build(small)
    with torch.no_grad():
        twin.complex_weight.copy_(expected.permute(2, 3, 0, 1))
    assert_close(mixer(tokens(16)), twin(tokens(16)))
    constant = torch.ones(1, 16, DIM, dtype=torch.float64)
    assert_close(mixer(constant)[0, 0], mixer.complex_weight[0, 0, :, 0])
    with torch.no_grad():
        mixer.complex_weight.copy_(torch.tensor([1.0, 0.0]))
    assert_close(mixer(tokens(16)), tokens(16))


def test_every_token_reads_every_token_and_the_prefix():
    x = tokens(14)
    weights = build((3, 4), 2).attention_map(x)
    assert (weights[:, :, 2:].abs() > 0).all()
    assert (weights[:, :, :2, 2:].abs() > 0).all()
    assert_close(weights[:, :, :2, 2:].std(-1), torch.zeros(2, HEADS, 2, dtype=torch.float64))


def test_it_moves_with_the_image():
    mixer, x = build((5, 6)), tokens(30)
    moved = x.unflatten(1, (5, 6)).roll((2, 1), (1, 2)).flatten(1, 2)
    assert_close(mixer(moved), mixer(x).unflatten(1, (5, 6)).roll((2, 1), (1, 2)).flatten(1, 2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"filter_size": (0, 3)}, "filter_size"),
        ({"filter_size": (3,)}, "filter_size"),
        ({"attn_drop": 0.1}, "attn_drop"),
    ],
)
def test_refusals(options, named):
    with pytest.raises(az.InputError, match=f"GlobalFilter.*{named}"):
        az.create_mixer("GlobalFilter", DIM, HEADS, **options)
