"""The block of mixer and sparse-coding step."""

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.models.build import build_model
from attention_zoo.models.white_box import SparseCoding, WhiteBoxBlock

ARGS = {"patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 2}


def build(mixer="CRATE", **args):
    torch.manual_seed(0)
    arguments = {**ARGS, "feed_forward": "ista", **args}
    return build_model(
        "vit_tiny_patch16_224", num_classes=3, image_size=(8, 8), mixer=mixer, model_args=arguments
    ).eval()


def test_step_as_the_released_code_writes_it():
    step = SparseCoding(6, dtype=torch.float64)
    z, d = torch.randn(2, 5, 6, dtype=torch.float64), step.weight
    expected = torch.relu(z + 0.1 * (z @ d - z @ d.T @ d) - 0.1 * 0.1)
    assert_close(step(z), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_of_sparse_coding_falls(seed):
    torch.manual_seed(seed)
    step, z = SparseCoding(6, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64).relu()
    assert step.step_size < 1 / torch.linalg.matrix_norm(step.weight, 2) ** 2

    def objective(u):
        return (z - u @ step.weight.T).square().sum(-1) / 2 + step.sparsity * u.abs().sum(-1)

    assert (objective(step(z)) <= objective(z)).all()


def test_whole_model_block_by_block():
    model, images = build().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert all(isinstance(block, WhiteBoxBlock) for block in model.blocks)
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    for block in model.blocks:
        x = block.norm1(x) @ block.attn.qkv.weight.T + block.attn.qkv.bias, x
        w = x[0].unflatten(-1, (2, 12)).transpose(1, 2)
        read = (w @ w.mT / 12**0.5).softmax(-1) @ w
        z = block.norm2(x[1] + block.attn.proj(read.transpose(1, 2).flatten(2)))
        x = block.mlp(z)
    assert_close(model(images), model.forward_head(model.norm(x)), rtol=1e-10, atol=1e-10)


def test_top_down_signals_reach_the_mixer_and_every_parameter_learns():
    model = az.TopDown(build()).train()
    out = model(torch.randn(2, 3, 8, 8))
    (out.logits.sum() + out.extra_logits[0].sum() + out.aux_loss).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("decoders.1.linear2"))


def test_any_mixer_and_timm_itself():
    assert build("VarsD")(torch.randn(1, 3, 8, 8)).shape == (1, 3)
    plain = timm.create_model("vit_tiny_patch16_224", img_size=8, block_fn=WhiteBoxBlock, num_classes=3, **ARGS)
    assert az.swap_mixers(plain, "CRATE")(torch.randn(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"feed_forward": "mlp"}, "feed_forward='mlp' must be one of: ista"),
        ({"feed_forward": 3}, "feed_forward=3"),
        ({"mlp_ratio": 2.0}, "mlp_ratio=2.0 has no meaning beside feed_forward='ista'"),
        ({"init_values": 1e-4}, "init_values"),
    ],
)
def test_arguments_that_do_not_fit(args, words):
    with pytest.raises(az.InputError, match=words):
        build(**args)


def test_without_a_step_the_model_is_timm_s():
    assert type(build(feed_forward=None).blocks[0]).__name__ == "Block"
