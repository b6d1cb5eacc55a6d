"""Adaptation switched in models that exist."""

import pytest
import timm
import torch

import attention_zoo as az
from attention_zoo.analysis.timing import backward, peak_memory

DATA = {"patch_size": 8, "img_size": 32, "embed_dim": 12, "num_heads": 2, "depth": 2, "num_classes": 3}


def model(mixer="Probabilistic", seed=0, **options):
    torch.manual_seed(seed)
    layer = az.attn_layer(mixer, **options)
    return timm.create_model("vit_tiny_patch16_224", attn_layer=layer, **DATA).eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_is_what_the_model_would_do_if_built_so():
    switched, built = model(), model(key_adaptation=1, key_prior_precision=0.5)
    assert not torch.allclose(switched(images()), built(images()))
    az.set_adaptation(switched, key_adaptation=1, key_prior_precision=0.5)
    assert torch.equal(switched(images()), built(images()))
    az.set_adaptation(switched, key_adaptation=None)
    assert torch.equal(switched(images()), built(images()))


def test_of_a_part_of_the_model_only():
    vit = model()
    az.set_adaptation(vit.blocks[1], key_adaptation=2)
    assert [block.attn.key_adaptation for block in vit.blocks] == [0, 2]


def test_a_context_leaves_everything_as_it_was():
    vit, other = model(), model()
    out = vit(images())
    az.set_adaptation(vit.blocks[0], key_adaptation=3)
    with pytest.raises(KeyError), az.adapted(vit, key_adaptation=1):
        assert [block.attn.key_adaptation for block in vit.blocks] == [1, 1]
        assert torch.equal(other(images()), out)
        raise KeyError
    assert [block.attn.key_adaptation for block in vit.blocks] == [3, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_adaption": 1}, "unknown option of adaptation 'key_adaption'; did you mean 'key_adaptation'"),
        ({"key_adaptation": -1}, "Probabilistic: key_adaptation=-1 must not be negative"),
        ({"value_propagation": 1}, "Probabilistic: value_propagation needs beta above 0"),
    ],
)
def test_bad_options_change_nothing(options, message):
    vit = model()
    for switch in (az.set_adaptation, lambda *args, **given: az.adapted(*args, **given).__enter__()):
        with pytest.raises(az.InputError, match=message):
            switch(vit, **options)
    assert all(block.attn.key_adaptation == block.attn.value_propagation == 0 for block in vit.blocks)


def test_a_model_that_cannot_adapt_says_so():
    vit = model("DotProduct")
    az.set_adaptation(vit, key_adaptation=0, key_prior_precision=0.1)
    with pytest.raises(az.InputError, match="key_adaptation=1: VisionTransformer has no Probabilistic layer"):
        az.set_adaptation(vit, key_adaptation=1, key_prior_precision=0.1)


@pytest.mark.parametrize("steps", [1, 3])
def test_training_through_adapted_keys_holds_at_most_three_times_what_attention_holds(steps):
    x = torch.randn(1, 1024, 24)  # where a matrix of all pairs would be 20 times as much
    mixers = az.create_mixer("DotProduct", 24, 2), az.create_mixer("Probabilistic", 24, 2, key_adaptation=steps)
    plain, adapting = (peak_memory(backward(mixer, x), "cpu") for mixer in mixers)
    assert plain < adapting <= 3 * plain
