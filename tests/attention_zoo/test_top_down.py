"""The second pass: what each mode means, on small hosts of any mixer."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.losses import with_auxiliary_loss
from attention_zoo.models import build_model
from attention_zoo.models.synthesis_losses import code_length, prior_loss, reconstruction_loss
from attention_zoo.models.top_down import DECODED
from tests.mixers import costly

MODES = ["absvit", "feedback", "perceiver_io", "mask_att", "qkv"]
SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
SELF = az.list_mixers("self")


def vit(mixer="DotProduct", seed=0, **args):
    torch.manual_seed(seed)
    return az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **{**SMALL, **args}), mixer).double().eval()


def wrapped(mixer="DotProduct", seed=1, host=None, **options):
    model = vit(mixer) if host is None else host
    torch.manual_seed(seed)
    top_down = az.TopDown(model, **options).double().eval()
    with torch.no_grad():
        for name, parameter in top_down.named_parameters():
            if name.startswith("decoders"):
                parameter.mul_(10)
    return top_down


def images(seed=1):
    return torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tokens_of(model):
    return model.forward_features(images())


@pytest.mark.parametrize("name", costly())
class TestEveryMixer:
    @pytest.mark.parametrize("mode", MODES)
    def test_trains(self, name, mode):
        model = wrapped(name, mode=mode).train()
        outputs = with_auxiliary_loss(model, model(images()))
        assert len(outputs.extra_logits) == (mode != "perceiver_io")
        total = sum(x.square().sum() for x in (outputs.logits, *outputs.extra_logits)) + outputs.aux_loss
        total.backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert not missing

    def test_no_signal_is_the_plain_model_to_the_bit(self, name):
        host = vit(name)
        plain = host(images())
        for mode in DECODED:
            assert torch.equal(wrapped(host=host, mode=mode, alpha=0.0)(images()), plain)

    def test_a_signal_changes_the_second_pass(self, name):
        host = vit(name)
        for mode in (*DECODED, "mask_att"):
            assert (wrapped(host=host, mode=mode)(images()) - host(images())).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["DotProduct", "Probabilistic"])  # each mixer alone compiles elsewhere
def test_compiles_as_one_graph_and_exports(name):
    model = wrapped(host=vit(name, depth=2))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(images()), model(images()))
    exported = torch.export.export(model, (images(),), strict=False)
    assert_close(exported.module()(images(seed=2)), model(images(seed=2)))


def second_pass(model, signals, to="v", bias=False):
    """timm's blocks with signals in their values, written out."""
    host = model.model
    x = host._pos_embed(host.patch_embed(images()))
    for block, signal in zip(host.blocks, signals, strict=True):
        x = x + block.attn(block.norm1(x), top_down=signal, top_down_to=to, top_down_bias=bias)
        x = x + block.mlp(block.norm2(x))
    return host.forward_head(host.norm(x))


def decoded(model, tokens):
    signals = []
    for decoder in reversed(model.decoders):
        tokens = tokens @ decoder.linear.weight.T
        signals.insert(0, tokens @ decoder.linear2.weight.T)
    return signals


class TestModes:
    def weights(self, model, tokens, prior):
        return (F.normalize(tokens, dim=-1) @ F.normalize(prior, dim=0)).clamp(0, 1)[..., None]

    @pytest.mark.parametrize(("mode", "to"), [("absvit", "v"), ("qkv", "qkv")])
    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_absvit_and_qkv(self, mode, to, variant):
        model = wrapped(mode=mode, alpha=3.0, variant=variant)
        found = tokens_of(model.model)
        signals = decoded(model, 3 * self.weights(model, found, model.prompt) * found)
        assert_close(model(images()), second_pass(model, signals, to, variant == "released"))

    def test_feedback_reweights_nothing(self):
        model = wrapped(mode="feedback", alpha=2.0)
        assert model.prompt is None
        assert_close(model(images()), second_pass(model, decoded(model, 2 * tokens_of(model.model))))

    def test_perceiver_io_is_one_pass(self):
        model = wrapped(mode="perceiver_io", alpha=2.0)
        found = tokens_of(model.model)
        reweighted = 2 * self.weights(model, found, model.prompt) * found
        assert_close(model(images()), model.model.forward_head(reweighted))
        assert not hasattr(model, "decoders")

    def test_mask_att_multiplies_the_values(self):
        model = wrapped(mode="mask_att")
        host = model.model
        gate = self.weights(model, tokens_of(host), model.prompt)
        x = host._pos_embed(host.patch_embed(images()))
        for block in host.blocks:
            q, k, v = block.attn.project(block.norm1(x))
            mixed = block.attn.mix(q, k, v * gate[:, None])
            x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        assert_close(model(images()), host.forward_head(host.norm(x)))

    def test_any_prior(self):
        model = wrapped(alpha=5.0)
        prior = torch.randn(24, dtype=torch.float64)
        found = tokens_of(model.model)
        expected = second_pass(model, decoded(model, 5 * self.weights(model, found, prior) * found))
        assert_close(model(images(), prior), expected)
        assert_close(model(images(), prior.expand(2, -1)), expected)
        one_each = torch.stack((prior, model.prompt.detach()))
        assert_close(model(images(), one_each), torch.stack((expected[0], model(images())[1])))

    def test_class_prototypes(self):
        model = wrapped(host=vit(class_token=False, global_pool="avg"))
        assert_close(model.class_prior(2), model.model.head.weight[2])
        assert model.class_prior([0, 3]).shape == (2, 24)
        assert model(images(), model.class_prior([0, 3])).shape == (2, 5)

    def test_forward_features_and_head(self):
        for mode in MODES:
            model = wrapped(mode=mode)
            assert_close(model.forward_head(model.forward_features(images())), model(images()))


class TestPasses:
    @pytest.mark.parametrize("mode", MODES)
    def test_all_priors_share_a_first_pass(self, mode):
        model = wrapped(mode=mode, alpha=2.0)
        first = model.first_pass(images(), keep=range(3))
        assert_close(first.output, tokens_of(model.model))
        assert_close(first.states[0][0], first.tokens)
        for prior in (None, torch.randn(24, dtype=torch.float64)):
            second = model.second_pass(first, prior)
            assert torch.equal(second.output, model.forward_features(images(), prior))
            assert second.similarity.shape == (2, 17, 1)
            assert len(second.signals) == (3 if mode in DECODED else 0)

    def test_signals_are_what_flows_back(self):
        model = wrapped(alpha=3.0)
        first = model.first_pass(images())
        second = model.second_pass(first, keep=[1])
        flows = second.similarity * first.output * 3
        for decoder, fed in zip(reversed(model.decoders), reversed(second.signals), strict=True):
            flows = decoder.linear(flows)
            assert_close(fed, flows)
        assert len(second.states) == 1

    @pytest.mark.parametrize("mode", MODES)
    def test_alpha_and_mode_of_one_pass_alone(self, mode):
        host, prior = vit(), torch.randn(24, dtype=torch.float64)
        model, own = wrapped(host=host), wrapped(host=host, mode=mode, alpha=4.0)
        second = model.second_pass(model.first_pass(images()), prior, alpha=4.0, mode=mode)
        assert_close(second.output, own.forward_features(images(), prior))
        assert (model.mode, model.alpha) == ("absvit", 1.0)

    def test_modes_that_a_model_has_no_weights_for(self):
        model = wrapped(mode="mask_att")
        with pytest.raises(az.InputError, match="mode='qkv' needs the feedback path, which a model of mode 'mask_att'"):
            model.second_pass(model.first_pass(images()), mode="qkv")
        model = wrapped(mode="feedback")
        with pytest.raises(az.InputError, match="mode 'feedback' has no learned query: give a prior"):
            model.second_pass(model.first_pass(images()), mode="absvit")


class TestVariationalLoss:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_is_how_far_decoders_are_from_the_layers_inputs(self, reduction):
        model = wrapped(reduction=reduction, variational_weight=0.3).train()
        seen = []
        for block in model.model.blocks:
            block.norm1.register_forward_hook(lambda _, args, __: seen.append(args[0].detach()))
        model.model.norm.register_forward_hook(lambda _, args, __: seen.append(args[0].detach()))
        loss = model(images()).aux_loss
        second = seen[4:]  # three inputs and the last output of each pass
        squares = [
            (after @ decoder.linear.weight.T - before).square()
            for decoder, before, after in zip(model.decoders, second, second[1:], strict=False)
        ]
        expected = sum(s.mean() if reduction == "mean" else s.sum() / 4 for s in squares)
        assert_close(loss, 0.3 * expected)

    def test_only_the_decoders_hear_of_it(self):
        model = wrapped().train()
        model(images()).aux_loss.backward()
        heard = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert heard == {f"decoders.{i}.linear.weight" for i in range(3)}

    def test_cosine_ignores_lengths(self):
        model = wrapped(reduction="cosine", variational_weight=1.0)
        pairs = [(torch.eye(3)[None], 5 * torch.eye(3)[None]), (torch.ones(1, 1, 2), torch.tensor([[[-2.0, -2.0]]]))]
        assert_close(reconstruction_loss(pairs, "cosine"), torch.tensor(2.0))  # the same, and the opposite
        model.train()(images()).aux_loss.backward()
        heard = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert heard == {f"decoders.{i}.linear.weight" for i in range(3)}


class TestChannelGate:
    def test_what_is_sent_back_is_projected_on_the_prior(self):
        model, prior = wrapped(alpha=2.0, channel_gate=5.0), torch.randn(24, dtype=torch.float64)
        tokens = tokens_of(model.model)
        sent = 2 * model.similarity(tokens, prior) * tokens
        gated = sent @ (torch.outer(prior, prior) * 5)  # as the released code writes it
        assert_close(model(images(), prior), second_pass(model, decoded(model, gated)))
        each = torch.stack((prior, -prior))
        assert_close(model(images(), each)[0], model(images(), prior)[0])

    def test_none_of_it_is_the_model_without(self):
        prior = torch.randn(24, dtype=torch.float64)
        model, plain = wrapped(channel_gate=0.0), wrapped()
        assert torch.equal(model(images(), prior), plain(images(), prior))

    def test_other_modes_of_one_pass_are_not_gated(self):
        model, plain = wrapped(channel_gate=5.0), wrapped()
        first = model.first_pass(images())
        gated, free = (each.second_pass(first, mode="feedback").output for each in (model, plain))
        assert torch.equal(gated, free)


class TestPriorLoss:
    def test_is_minus_the_log_of_the_equation(self):
        seen, prior = torch.randn(2, 4, 8, dtype=torch.float64)
        unit_seen, unit_prior = F.normalize(seen, dim=1), F.normalize(prior, dim=1)
        likely = torch.exp(unit_prior @ unit_seen.T / 0.07)  # of prior i and image j
        expected = -(likely.diag() / likely.sum(1)).log().mean()
        assert_close(prior_loss(seen, prior, 0.07), expected)
        other = -(likely.diag() / likely.sum(0)).log().mean()
        assert_close(prior_loss(seen, prior, 0.07, both_ways=True), (expected + other) / 2)

    @pytest.mark.parametrize(("variant", "both_ways"), [("paper", False), ("released", True)])
    @pytest.mark.parametrize("pool", ["avg", "token"])
    def test_is_added_to_the_loss_with_its_weight(self, variant, both_ways, pool):
        def build(**options):
            return wrapped(host=vit(class_token=pool == "token", global_pool=pool), variant=variant, **options).train()

        prior = torch.randn(2, 24, dtype=torch.float64)
        model = build(prior_weight=0.5, temperature=0.2)
        output = model.forward_features(images(), prior)
        seen = output[:, 0] if pool == "token" else output.mean(1)
        added = model(images(), prior).aux_loss - build()(images(), prior).aux_loss
        assert_close(added, 0.5 * prior_loss(seen, prior, 0.2, both_ways=both_ways))

    def test_one_prior_for_all_images_is_refused(self):
        model = wrapped(prior_weight=0.1).train()
        with pytest.raises(az.InputError, match="prior_weight=0.1 needs a prior .B, dim. of each image"):
            model(images(), torch.randn(24, dtype=torch.float64))
        assert model.eval()(images()).shape == (2, 5)

    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_without_one_the_loss_is_of_the_prototypes_of_the_classes(self, variant):
        def build(**options):
            return wrapped(host=vit(class_token=False, global_pool="avg"), variant=variant, **options).train()

        model = build(prior_weight=0.5, temperature=0.2)
        outputs, plain = model(images()), build()(images())
        assert plain.target_loss is None
        assert_close(outputs[:3], plain[:3])
        seen, prototypes = model.forward_features(images()).mean(1), model.get_classifier().weight
        labels = torch.tensor([3, 1])
        expected = 0.5 * prior_loss(seen, prototypes[labels], 0.2, both_ways=variant == "released")
        assert_close(outputs.target_loss(labels), expected)
        assert_close(outputs.target_loss(F.one_hot(labels, 5)), expected)
        expected.backward()
        assert prototypes.grad[[1, 3]].abs().sum(1).all() and not prototypes.grad[[0, 2, 4]].any()
        model.zero_grad()
        model(images()).target_loss(labels).backward()
        assert model.prompt.grad is not None and prototypes.grad[3].any()


class TestSparsity:
    @pytest.mark.parametrize("mixer", ["VarsS", "VarsD", "VarsSD"])
    def test_is_the_length_of_the_codes_of_the_second_pass(self, mixer):
        model = wrapped(mixer, sparsity=0.3, reduction="sum").train()
        codes = []
        for block in model.model.blocks:

            def code(_, args, kwargs, __, attention=block.attn):
                signal = {name: value for name, value in kwargs.items() if name.startswith("top_down")}
                q, _, v = attention.project(*args, **signal)
                codes.append(attention.problem(q, attention.split(v))[1].solve())

            block.attn.register_forward_hook(code, with_kwargs=True)
        loss = model(images()).aux_loss
        expected = sum(each.abs().sum() / 2 for each in codes[3:])  # three layers of each pass
        assert_close(loss - wrapped(mixer, reduction="sum").train()(images()).aux_loss, 0.3 * expected)
        assert_close(code_length(codes[:1], "mean"), codes[0].abs().mean())

    def test_the_layers_learn_of_it_also_with_checkpointing(self):
        gradients = []
        for enabled in (False, True):
            model = wrapped("VarsD", sparsity=1.0, variational_weight=0.0).train()
            model.set_grad_checkpointing(enabled)
            model(images()).aux_loss.backward()
            gradients.append(model.model.blocks[0].attn.qkv.weight.grad)
            assert all(block.attn.hear is None for block in model.model.blocks)
        assert gradients[0].abs().max() > 0
        assert_close(*gradients)

    def test_needs_codes(self):
        with pytest.raises(az.InputError, match="sparsity is of the codes of sparse mixers.*VarsS, VarsD, VarsSD"):
            wrapped(sparsity=0.1)  # before anything is trained


class TestState:
    def test_its_own_the_plain_models_and_released_names(self):
        model = wrapped()
        bare = {name.removeprefix("model."): x for name, x in model.state_dict().items()}
        for state in (model.state_dict(), bare):
            other = wrapped(host=vit(seed=5), seed=6)
            other.load_state_dict(state)
            assert_close(other(images()), model(images()))
        other = wrapped(host=vit(seed=5))
        left = other.load_state_dict(model.model.state_dict(), strict=False)
        assert all(name.startswith(("decoders", "prompt")) for name in left.missing_keys)
        assert not left.unexpected_keys
        assert_close(other.model(images()), model.model(images()))

    def test_gradient_checkpointing(self):
        gradients = []
        for enabled in (False, True):
            model = wrapped().train()
            model.set_grad_checkpointing(enabled)
            model(images()).logits.sum().backward()
            gradients.append(model.decoders[0].linear.weight.grad)
        assert_close(*gradients)

    def test_swapping_its_mixers(self):
        model = az.swap_mixers(wrapped(), "Performer", layers={"last": "VarsD"})
        assert [type(block.attn).__name__ for block in model.model.blocks] == ["Performer", "Performer", "VarsD"]
        assert model(images()).shape == (2, 5)

    def test_the_usual_methods_of_a_model(self):
        model = wrapped()
        assert {"prompt", "model.pos_embed"} <= model.no_weight_decay()
        model.reset_classifier(7)
        assert model.num_classes == 7
        assert model(images()).shape == (2, 7)


OTHERS = {
    "rvt_tiny": {"img_size": (48, 64), "embed_dims": (12, 24), "depths": (2, 1), "num_heads": (2, 4)},
    "rvt_small": {"img_size": 48, "embed_dims": (24,), "depths": (2,), "num_heads": (2,)},
    "gfnet_tiny": {"img_size": 48, "embed_dim": 24, "depth": 2},
    "deit_conv_tiny_patch16_224": {"img_size": 48, "embed_dim": 24, "depth": 2, "num_heads": 2},
}


@pytest.mark.parametrize("name", OTHERS)
class TestOtherHosts:
    def host(self, name, **args):
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=5, mixer="VarsD", **OTHERS[name], **args).double().eval()

    def images(self, name):
        size = OTHERS[name]["img_size"]
        size = (size, size) if isinstance(size, int) else size
        return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def test_no_signal_is_the_plain_model_to_the_bit(self, name):
        host, image = self.host(name), self.images(name)
        plain = host(image)
        for mode in DECODED:
            assert torch.equal(wrapped(host=host, mode=mode, alpha=0.0)(image), plain)

    @pytest.mark.parametrize("mode", MODES)
    def test_trains(self, name, mode):
        model = wrapped(host=self.host(name), mode=mode).train()
        outputs = model(self.images(name))
        outputs = outputs if isinstance(outputs, az.Outputs) else az.Outputs(outputs)
        total = sum(x.square().sum() for x in (outputs.logits, *outputs.extra_logits)) + outputs.aux_loss
        total.backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None]

    def test_signal_reaches_every_layer(self, name):
        model, heard = wrapped(host=self.host(name)), []

        def hear(_, __, kwargs, ___):
            heard.append("top_down" in kwargs)

        for module in model.modules():
            if isinstance(module, az.SelfMixer):
                module.register_forward_hook(hear, with_kwargs=True)
        model(self.images(name))
        assert heard == [False] * (len(heard) // 2) + [True] * (len(heard) // 2)

    @pytest.mark.slow
    def test_gradient_checkpointing_and_export(self, name):
        gradients = []
        for enabled in (False, True):
            model = wrapped(host=self.host(name)).train()
            model.set_grad_checkpointing(enabled)
            for module in model.modules():  # its averages would move twice as often
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
            model(self.images(name)).logits.sum().backward()
            gradients.append(model.decoders[0].linear.weight.grad)
        assert_close(*gradients)
        model = wrapped(host=self.host(name))
        exported = torch.export.export(model, (self.images(name),), strict=False)
        assert_close(exported.module()(self.images(name)), model(self.images(name)))


class TestAbsvit:
    @pytest.mark.parametrize(
        ("name", "size"),
        [
            ("absvit_tiny_patch16_224", {"img_size": 32}),
            ("absvit_small_patch16_224", {"img_size": (32, 48), "depth": 2}),
            ("absvit_base_patch16_224", {"img_size": 32, "depth": 1}),
            ("absvit_tiny_patch8_224_gap", {"img_size": 32, "depth": 2}),
        ],
    )
    def test_registered_with_timm(self, name, size):
        model = timm.create_model(name, num_classes=3, mixer="VarsD", mixer_args={"steps": 1}, **size).eval()
        image = torch.randn(1, 3, *((size["img_size"],) * 2 if isinstance(size["img_size"], int) else size["img_size"]))
        assert model(image).shape == (1, 3)
        assert model.variant == "released"
        assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 224, 224)

    def test_as_many_parameters_as_the_released(self):
        assert sum(p.numel() for p in timm.create_model("absvit_tiny_patch16_224").parameters()) == 6_602_344

    def test_options(self):
        model = timm.create_model("absvit_tiny_patch16_224", top_down={"mode": "feedback", "alpha": 2.0}, depth=1)
        assert (model.mode, model.alpha) == ("feedback", 2.0)
        with pytest.raises(az.InputError, match="no weights to download"):
            timm.create_model("absvit_tiny_patch16_224", pretrained=True)


class TestBuilt:
    ARGS = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}

    def build(self, name="vit_tiny_patch16_224", args=ARGS, **options):
        torch.manual_seed(0)
        return build_model(name, num_classes=5, image_size=(16, 16), model_args=args, **options).eval()

    def test_any_host_with_any_mixer(self):
        model, plain = self.build(top_down="feedback"), self.build(mixer="DotProduct")
        assert isinstance(model, az.TopDown) and model.mode == "feedback"
        assert torch.equal(model.model(images().float()), plain(images().float()))
        assert model.pretrained_cfg == model.model.pretrained_cfg
        small = {"embed_dims": (12, 24), "depths": (1, 1), "num_heads": (2, 4)}
        model = self.build("rvt_tiny", small, mixer="VarsD", top_down={"mode": "absvit", "alpha": 3.0})
        assert model.alpha == 3 and model(images().float()).shape == (2, 5)
        mixers = {type(module) for module in model.modules() if isinstance(module, az.SelfMixer)}
        assert mixers == {az.create_mixer("VarsD", dim=24, grid=(4, 4)).__class__}

    def test_starts_from_weights_of_a_model_that_looks_once_or_twice(self, tmp_path):
        plain, twice = self.build(mixer="DotProduct"), self.build(top_down="absvit")
        for model in (plain, twice):
            with torch.no_grad():
                [parameter.add_(0.1) for parameter in model.parameters()]
            torch.save(model.state_dict(), tmp_path / "weights.pth")
            found = self.build(top_down="absvit", weights=str(tmp_path / "weights.pth"))
            inner = found.model if model is plain else found
            assert all(torch.equal(inner.state_dict()[name], tensor) for name, tensor in model.state_dict().items())

    @pytest.mark.parametrize(
        ("name", "top_down", "message"),
        [
            ("vit_tiny_patch16_224", {"mod": "qkv"}, "unknown option of TopDown 'mod'; did you mean 'mode'"),
            ("vit_tiny_patch16_224", "absvitt", "mode='absvitt' must be one of: absvit"),
            ("absvit_tiny_patch16_224", "qkv", "looks twice already; its options are model_args: top_down"),
            ("resnet18", "absvit", "resnet|ResNet"),
        ],
    )
    def test_refusals(self, name, top_down, message):
        with pytest.raises(az.InputError, match=message):
            self.build(name, {} if name == "resnet18" else self.ARGS, top_down=top_down)


def asked_with(**options):
    model = wrapped().eval()
    return model.second_pass(model.first_pass(images()), **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: az.TopDown(vit(), mode="absvitt"), "mode='absvitt' must be one of: absvit, feedback"),
        (lambda: az.TopDown(vit(), reduction="max"), "reduction='max'"),
        (lambda: az.TopDown(vit(), variant="other"), "variant='other'"),
        (lambda: az.TopDown(vit(), alpha=float("inf")), "alpha=inf must be a finite number"),
        (lambda: az.TopDown(vit(), alpha=-1.0), "alpha=-1.0 must not be negative"),
        (lambda: az.TopDown(vit(), variational_weight=float("nan")), "variational_weight=nan must be a finite number"),
        (lambda: asked_with(alpha=float("nan")), "alpha=nan must be a finite number"),
        (lambda: asked_with(alpha=-1.0), "alpha=-1.0 must not be negative"),
        (lambda: wrapped().class_prior(-1), "class_prior: -1 must be places of classes, integers from 0 to"),
        (lambda: wrapped().class_prior([0, 10**6]), r"class_prior: \[0, 1000000\] must be"),
        (lambda: wrapped().class_prior("cat"), "class_prior: cat must be"),
        (lambda: wrapped().class_prior(torch.tensor(0.5)), "class_prior: tensor.* must be"),
        (lambda: az.TopDown(vit(), channel_gate=-1.0), "channel_gate=-1.0 must not be negative"),
        (lambda: az.TopDown(vit(), temperature=0.0), "temperature=0.0 must be above 0"),
        (lambda: az.TopDown(vit(), sparsity=float("nan")), "sparsity=nan must be a finite number"),
        (lambda: az.TopDown(vit(), mode="feedback", channel_gate=5.0), "channel_gate=5.0 is for the modes absvit, qkv"),
        (lambda: az.TopDown(vit(), mode="perceiver_io", sparsity=1.0), "sparsity=1.0 is for.*not for perceiver_io"),
        (lambda: az.TopDown(timm.create_model("vit_tiny_patch16_224", **SMALL)), "swap_mixers"),
        (lambda: az.TopDown(nn.Linear(2, 2)), "Linear cannot be taken apart"),
        (lambda: wrapped()(images(), torch.zeros(3, dtype=torch.float64)), r"prior \(3,\).*dim=24"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(az.InputError, match=message):
        build()
