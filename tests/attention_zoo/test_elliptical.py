"""`Elliptical` layers, which compare their values with those of the layer before."""

import copy
import pickle

import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from tests.attention_zoo.mixture_cases import (
    SCALE,
    D,
    H,
    draw,
    exactly,
    heads,
    same,
    softmax,
)


def vit(mixer, depth=3, **options):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=H * D, depth=depth, num_heads=H, num_classes=4
    )
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(20)  # so that the weights of attention differ
    return az.swap_mixers(model, mixer, **options).double().eval()


class TestLayers:
    """Elliptical layers compare their values with those of the layer before."""

    def layers(self, model):
        return [block.attn for block in model.blocks]

    def naive(self, model, images):
        """The model's logits with the metric of every layer by hand, as the released layer computes it."""
        x, last = model._pos_embed(model.patch_embed(images)), None
        for block in model.blocks:
            q, k, v = block.attn.project(block.norm1(x))
            metric = torch.ones(()) if last is None else (v - last).abs().mean(2, keepdim=True) / 5
            metric = (metric / metric.amax(-1, keepdim=True)).detach() if last is not None else metric
            mixed, last = ((q * metric) @ k.mT * SCALE).softmax(-1) @ v, v
            x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        return model.forward_head(model.norm(x))

    def test_naive_twin(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        same(model(images), self.naive(model, images), list(model.parameters()))
        plain = vit("DotProduct")
        plain.load_state_dict(model.state_dict())
        assert (plain(images) - model(images)).abs().max() > 1e-4
        assert_close(model(images), model(images), rtol=0, atol=0)

    def test_built_with_it(self):
        args = {"img_size": 32, "patch_size": 8, "embed_dim": H * D, "depth": 3, "num_heads": H, "num_classes": 4}
        built = timm.models.VisionTransformer(**args, attn_layer=az.attn_layer("Elliptical")).double().eval()
        swapped, images = vit("Elliptical"), draw(2, 3, 32, 32)
        built.load_state_dict(swapped.state_dict())
        assert_close(built(images), swapped(images), rtol=0, atol=0)

    def test_samples_do_not_meet_and_another_batch_follows(self):
        model, images = vit("Elliptical"), draw(3, 3, 32, 32)
        assert_close(model(images)[1:2], model(images[1:2]), **exactly)

    def test_a_layer_by_itself_is_dot_product(self):
        model = vit("Elliptical")
        model(draw(2, 3, 32, 32))
        q, k, v = heads()
        for layer in self.layers(model):
            assert_close(layer.mix(q, k, v), softmax(q, k) @ v, **exactly)

    def test_values_that_did_not_change_count_alike(self):
        model = vit("Elliptical", depth=2)
        first, second = self.layers(model)
        q, k, v = heads()
        first.mix(q, k, v)
        assert_close(second.mix(q, k, v), softmax(q, k) @ v, **exactly)

    def test_copies_hand_on_among_themselves(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        logits = model(images)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_close(twin(images), logits, rtol=0, atol=0)
            assert self.layers(twin)[1].before is self.layers(twin)[0].onward
            assert self.layers(twin)[1].before is not self.layers(model)[1].before

    def test_other_layers_between_are_passed_over(self):
        model = vit("DotProduct", layers={"0": "Elliptical", "2": "Elliptical"})
        first, _, third = self.layers(model)
        assert third.before is first.onward is not None and first.before is None
        az.swap_mixers(model, layers={"0": "DotProduct"})
        assert third.before is None

    def test_checkpointed_blocks(self):
        model, images = vit("Elliptical"), draw(2, 3, 32, 32)
        plain = torch.autograd.grad(model(images).sum(), list(model.parameters()))
        model.set_grad_checkpointing(True)
        model.train()
        assert_close(torch.autograd.grad(model(images).sum(), list(model.parameters())), plain, **exactly)

    def test_compiled(self):
        model, images = vit("Elliptical", depth=2), draw(2, 3, 32, 32)
        torch.compiler.reset()
        assert_close(torch.compile(model, backend="eager")(images), model(images))

    def test_exported(self):
        model, images = vit("Elliptical", depth=2), draw(2, 3, 32, 32)
        assert_close(torch.export.export(model, (images,)).module()(images), model(images))
