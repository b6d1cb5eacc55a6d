"""Images decoded from the first layer's signals."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis.decoder import (
    ImageDecoder,
    LeastSquares,
    decode_signals,
    first_input,
    fit_decoder,
    patches_of,
    signal_to_noise,
)

VIT = {"img_size": 8, "patch_size": 2, "depth": 2, "num_heads": 2, "num_classes": 3, "global_pool": "avg"}


def absvit(mode="absvit", dim=16, **options):
    torch.manual_seed(0)
    arguments = {**VIT, "embed_dim": dim, "class_token": False, **options}
    return timm.create_model("absvit_tiny_patch8_224_gap", top_down={"mode": mode}, **arguments).eval()


def pictures(number=24, size=8, seed=0):
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(seed))


def rows(number, inputs, targets, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, inputs, generator=generator, dtype=torch.float64) + 3
    y = x @ torch.randn(inputs, targets, generator=generator, dtype=torch.float64)
    return x, y + 0.3 * torch.randn(number, targets, generator=generator, dtype=torch.float64) - 1


class TestLeastSquares:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 6), st.integers(1, 4), st.floats(0, 1))
    def test_any_cut_into_batches_gives_the_solution_of_all_rows_at_once(self, sizes, inputs, targets, ridge):
        x, y = rows(sum(sizes) + 8, inputs, targets)
        statistics = LeastSquares(inputs, targets)
        for part in zip(x.split([*sizes, 8]), y.split([*sizes, 8]), strict=True):
            statistics.add(*part)
        weight, bias = statistics.solve(ridge)
        about, apart = x - x.mean(0), y - y.mean(0)
        gram = about.T @ about
        penalty = ridge * gram.trace() / inputs * torch.eye(inputs, dtype=x.dtype)
        assert_close(weight, torch.linalg.solve(gram + penalty, about.T @ apart), rtol=1e-6, atol=1e-9)
        assert_close(bias, y.mean(0) - x.mean(0) @ weight)
        assert_close(statistics.errors(weight), (x @ weight + bias - y).square().mean(0), rtol=1e-6, atol=1e-9)

    def test_it_is_where_gradient_descent_ends(self):
        x, y = rows(50, 4, 3)
        statistics = LeastSquares(4, 3)
        statistics.add(x, y)
        ridge = 0.05
        weight, bias = statistics.solve(ridge)
        penalty = ridge * (x - x.mean(0)).square().sum() / 4
        layer = torch.nn.Linear(4, 3, dtype=torch.float64)
        descent = torch.optim.LBFGS(
            layer.parameters(), max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure():
            descent.zero_grad()
            loss = (layer(x) - y).square().sum() + penalty * layer.weight.square().sum()
            loss.backward()
            return loss

        descent.step(closure)
        assert_close(layer.weight.detach().T, weight, rtol=1e-5, atol=1e-6)
        assert_close(layer.bias.detach(), bias, rtol=1e-5, atol=1e-6)

    def test_columns_that_depend_on_each_other_have_the_shortest_solution(self):
        x, y = rows(30, 3, 2)
        x = torch.cat((x, x.sum(1, keepdim=True)), 1)
        statistics = LeastSquares(4, 2)
        statistics.add(x, y)
        weight, _ = statistics.solve(0.0)
        assert_close(weight, torch.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0)))

    def test_what_it_holds_does_not_grow(self):
        statistics = LeastSquares(3, 2)
        sizes = []
        for _ in range(3):
            statistics.add(torch.randn(1000, 3), torch.randn(1000, 2))
            sizes.append(sum(value.numel() for value in vars(statistics).values() if isinstance(value, torch.Tensor)))
        assert sizes == [sizes[0]] * 3 and statistics.count == 3000


class TestDecoder:
    def test_pixels_below_a_token_and_back(self):
        images = pictures(2)
        patches = patches_of(images, (4, 2))
        assert_close(patches[1, 2, 1].view(3, 2, 4), images[1, :, 4:6, 4:])
        itself = ImageDecoder(torch.eye(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64), (2, 4), 2, 0.0)
        assert_close(itself(patches.movedim(-1, 1)), images)

    def test_exact_where_the_embedding_is_invertible(self):
        model, images = absvit(dim=24, pos_embed="none"), pictures(60)
        decoder = fit_decoder(model, iter(images.split(7)), ridge=0.0)  # read once
        assert decoder.images == 60
        unseen = pictures(5, seed=1)
        assert_close(decoder(first_input(model, unseen)), unseen, rtol=0, atol=1e-4)
        assert decoder.error < 1e-9

    def test_narrow_tokens_lose_what_the_error_says(self):
        model, images = absvit(dim=8), pictures(40)
        decoder = fit_decoder(model, images.split(40))
        error = (decoder(first_input(model, images)) - images).square().mean().item()
        assert error > 1e-3 and decoder.error == pytest.approx(error, rel=1e-4)

    @pytest.mark.parametrize("name", ["rvt_tiny", "vit_tiny_patch16_224"])
    def test_models_of_a_class_token_and_of_stages(self, name):
        options = {"mixer": "DotProduct"} if name == "rvt_tiny" else {"depth": 1}
        model = timm.create_model(name, img_size=64, **options)
        decoder = fit_decoder(model, [pictures(2, size=64)])
        assert decoder.patch == (16, 16)
        assert decoder(first_input(model, pictures(1, size=64))).shape == (1, 3, 64, 64)
        assert model.training

    def test_signals_of_the_first_layer(self):
        model, images = absvit(), pictures(6)
        decoder = fit_decoder(model, [images])
        prior = model.class_prior(1)
        seen = decode_signals(model, decoder, images, prior, alpha=3.0)
        with torch.no_grad():
            found = model.first_pass(images)
            sent = 3 * model.similarity(found.output, prior) * found.output
            for layer in reversed(model.decoders):
                sent = layer.linear(sent)
        assert_close(seen.bottom_up, decoder(first_input(model, images)))
        assert_close(seen.top_down, decoder(sent.mT.unflatten(2, (4, 4))))
        zero = decoder(torch.zeros(1, 16, 4, 4))
        assert_close(seen.both, seen.bottom_up + seen.top_down - zero, rtol=1e-4, atol=1e-5)
        none = decode_signals(model, decoder, images, prior, alpha=0.0)
        assert_close(none.both, none.bottom_up)

    def test_a_pyramid_feeds_back_to_its_first_stage(self):
        torch.manual_seed(0)
        model = az.TopDown(timm.create_model("rvt_tiny", mixer="DotProduct", img_size=64, num_classes=3), alpha=5)
        for weight in (*model.decoders.parameters(), *model.unpools.parameters()):
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)  # what flows back keeps its size
        images = pictures(1, size=64)
        decoder = fit_decoder(model, [images])
        with torch.no_grad():
            prior = model.eval().first_pass(images).output[0, 0]  # which some token is
        seen = decode_signals(model, decoder, images, prior)
        assert seen.top_down.shape == seen.both.shape == images.shape
        assert not torch.equal(seen.both, seen.bottom_up)

    def test_refusals(self):
        decoder = fit_decoder(absvit(), [pictures(2)])
        with pytest.raises(az.InputError, match="at least one image"):
            fit_decoder(absvit(), [])
        with pytest.raises(az.InputError, match="ridge=-1.0 must not be negative"):
            fit_decoder(absvit(), [pictures(2)], ridge=-1.0)
        with pytest.raises(az.InputError, match="mode 'mask_att' feeds nothing back .* absvit, feedback, qkv"):
            decode_signals(absvit("mask_att"), decoder, pictures(2))
        with pytest.raises(az.InputError, match="tokens to decode .* not finite"):
            decode_signals(absvit(), decoder, pictures(2), alpha=1e300)
        with pytest.raises(az.InputError, match="VisionTransformer has no top-down pass.*--model.top_down absvit"):
            decode_signals(absvit().model, decoder, pictures(2))


def test_signal_to_noise_by_hand():
    images = torch.zeros(2, 3, 4, 4)
    decoded = images.clone()
    decoded[0, :, :2] = 0.1
    decoded[1] = -4  # cut to the image's own black
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[:, :2] = True
    assert_close(signal_to_noise(decoded, images, where), torch.tensor([20.0, 120.0], dtype=torch.float64))
    assert_close(signal_to_noise(decoded, images, ~where), torch.tensor([120.0, 120.0], dtype=torch.float64))
    assert signal_to_noise(decoded, images)[0] == pytest.approx(20 + 10 * torch.log10(torch.tensor(2.0)).item())
