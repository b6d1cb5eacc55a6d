import warnings
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.attacks import FGSM, PGD, AutoAttack, OnPixels, auto_attack
from attention_zoo.attacks.losses import losses_of

ROUNDING = 1e-7  # of adding and subtracting eps in float32


def pictures(count=8, seed=0):
    """Images whose label is their brightest channel, by a little."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, 8, 8, generator=generator)
    label = torch.arange(count) % 3
    pixels[torch.arange(count), label] += 0.1
    return pixels.clamp(0, 1), label


def vit(mixer=None, **args):
    torch.manual_seed(0)
    small = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.create_model("vit_tiny_patch16_224", **small, **args)
    return (az.swap_mixers(model, mixer) if mixer else model).eval()


@pytest.fixture(scope="module")
def trained():
    model = nn.Sequential(OnPixels(nn.Flatten(), (0.5, 0.5, 0.5), (0.2, 0.3, 0.4)), nn.Linear(192, 16), nn.GELU())
    torch.manual_seed(0)
    model.append(nn.Linear(16, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    pixels, label = pictures(300)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), label).backward()
        optimizer.step()
    return model.eval()


def mean_loss(model, pixels, label):
    with torch.no_grad():
        return F.cross_entropy(model(pixels), label).item()


def test_fgsm_is_one_step_of_pgd_from_the_image(trained):
    pixels, label = pictures()
    one = PGD(2 / 255, 2 / 255, steps=1, random_start=False)(trained, pixels, label)
    assert_close(FGSM(2 / 255)(trained, pixels, label), one, rtol=0, atol=0)
    pixels.requires_grad_()
    F.cross_entropy(trained(pixels), label).backward()
    by_hand = (pixels + 2 / 255 * pixels.grad.sign()).clamp(0, 1)
    assert_close(one, by_hand.detach(), rtol=0, atol=ROUNDING)


def test_the_defaults_are_the_papers():
    assert FGSM().settings == {"attack": "FGSM", "eps": "1/255", "loss": "cross_entropy", "norm": "Linf"}
    pgd = PGD().settings
    assert (pgd["eps"], pgd["step"], pgd["steps"], pgd["random_start"]) == ("1/255", "0.5/255", 5, True)
    assert PGD(0.5, norm="L2").settings["eps"] == 0.5
    assert PGD(eps="4/255").eps == 4 / 255
    with pytest.raises(az.InputError, match="eps=4/ must be"):
        PGD(eps="4/")


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("L2", 0.5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_loss_rises_with_the_steps(trained, norm, eps, loss):
    pixels, label = pictures(64, seed=1)
    stronger = [PGD(eps, eps / 10, steps, norm=norm, loss=loss, random_start=False) for steps in (1, 2, 4, 8, 16)]
    losses = [mean_loss(trained, attack(trained, pixels, label), label) for attack in stronger]
    assert losses == sorted(losses)
    assert losses[-1] > 2 * mean_loss(trained, pixels, label)


def test_more_restarts_are_stronger(trained):
    pixels, label = pictures(64, seed=2)
    margins = []
    for restarts in (1, 3, 6):
        logits = trained(PGD(0.05, 1e-6, 1, restarts=restarts, loss="margin")(trained, pixels, label)).detach()
        right = F.one_hot(label, 3).bool()
        margins.append((logits.masked_fill(right, -torch.inf).amax(1) - logits[right]).clamp(max=0))
    assert (margins[0] <= margins[1]).all()
    assert (margins[1] <= margins[2]).all()
    assert margins[0].mean() < margins[1].mean() < margins[2].mean()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    eps=st.floats(1e-4, 2),
    ratio=st.floats(0.1, 5),
    steps=st.integers(1, 4),
    norm=st.sampled_from(["Linf", "L2"]),
    random_start=st.booleans(),
)
def test_no_pixel_leaves_the_ball_or_the_range(seed, eps, ratio, steps, norm, random_start):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    pixels = torch.rand(3, 3, 4, 4).round(decimals=1)  # some at the border
    attack = PGD(eps, eps * ratio, steps, norm=norm, random_start=random_start)
    attacked = attack(model, pixels, torch.tensor([0, 1, 2]))
    change = (attacked - pixels).flatten(1)
    size = change.abs().amax(1) if norm == "Linf" else change.norm(dim=1)
    assert size.max() <= eps * (1 + 1e-6) + ROUNDING
    assert 0 <= attacked.min() <= attacked.max() <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_starts_fill_the_ball(norm):
    pixels = torch.full((500, 1, 1, 2), 0.5)
    starts = PGD(0.1, norm=norm)._starts(pixels, list(range(500))).flatten(1)
    size = (starts.abs().amax(1) if norm == "Linf" else starts.norm(dim=1)) / 0.1
    assert size.max() <= 1
    assert_close((size**2).mean(), torch.tensor(0.5), atol=0.04, rtol=0)  # uniform in two dimensions


def test_what_happens_to_an_image_does_not_depend_on_its_batch(trained):
    pixels, label = pictures(6)
    index = torch.tensor([40, 2, 7, 9, 11, 30])
    together = PGD(0.05)(trained, pixels, label, index)
    for place in range(6):
        alone = PGD(0.05)(trained, pixels[[place]], label[[place]], index[[place]])
        assert_close(alone[0], together[place], rtol=0, atol=ROUNDING)
    other = PGD(0.05, seed=1, step=1e-9)(trained, pixels, label, index)
    assert (other - PGD(0.05, step=1e-9)(trained, pixels, label, index)).abs().max() > 0.01


def test_the_normalisation_does_not_matter():
    pixels, label = pictures()
    model = vit().double()
    scaled = vit().double()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).double(), torch.tensor([0.1, 0.2, 0.3]).double()
    weight = model.patch_embed.proj.weight.data
    scaled.patch_embed.proj.weight.data = weight * std.view(1, 3, 1, 1)
    scaled.patch_embed.proj.bias.data += (weight * mean.view(1, 3, 1, 1)).sum((1, 2, 3))
    plain = PGD(0.05, random_start=False)(lambda images: model(images.double()), pixels, label)
    normalised = OnPixels(scaled, mean.tolist(), std.tolist()).double()
    assert_close(PGD(0.05, random_start=False)(lambda images: normalised(images.double()), pixels, label), plain)


@pytest.mark.parametrize("mixer", az.list_mixers("self"))
def test_every_mixer_can_be_attacked_inside_inference_mode(mixer):
    model = vit(mixer)
    pixels, label = pictures(3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        pixels, label = pixels.clone(), label.clone()
        model(pixels)  # what a mixer keeps for later is made in inference mode
        attacked = FGSM(0.1)(model, pixels, label)
    assert attacked.dtype == torch.float32
    assert_close(attacked, FGSM(0.1)(vit(mixer), *pictures(3)))
    assert ((attacked - pixels).abs() > 0).any((1, 2, 3)).all()


@pytest.mark.parametrize("mode", ["absvit", "feedback", "mask_att"])
def test_gradients_pass_both_passes_of_a_top_down_model(mode):
    model = az.TopDown(vit("DotProduct"), mode=mode).eval()
    for parameter in model.parameters():  # a signal strong enough to be seen
        nn.init.normal_(parameter, std=0.3)
    pixels, label = pictures(4)
    seen = []

    def loss(images):
        return F.cross_entropy(model(images), label, reduction="sum")

    model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    attacked = FGSM(1e-3)(model, pixels, label)
    direction = (attacked - pixels).sign()
    assert seen == [True]
    images = pixels.clone().requires_grad_()
    (whole,) = torch.autograd.grad(loss(images), images)
    inside = (pixels > 0.01) & (pixels < 0.99) & (whole.abs() > 1e-6)
    assert_close(direction[inside], whole.sign()[inside])
    first = model.first_pass(images)
    second = model.second_pass(replace(first, output=first.output.detach())).output
    (only_second,) = torch.autograd.grad(F.cross_entropy(model.host.classify(second), label, reduction="sum"), images)
    assert (only_second.sign() != direction)[inside].any()


def test_a_model_comes_back_in_its_mode():
    model = vit(drop_rate=0.5).train()
    model.norm.eval()
    pixels, label = pictures(2)
    assert_close(FGSM()(model, pixels, label), FGSM()(model, pixels, label), rtol=0, atol=0)
    assert model.training
    assert not model.norm.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_images():
    assert PGD()(vit(), torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("build", [PGD, FGSM, AutoAttack])
def test_a_ball_of_all_images_is_told(build):
    with pytest.warns(UserWarning, match=r"eps=4: pixels are in 0\.\.1"):
        build(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(1.0)
        PGD(4, norm="L2")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: PGD(eps="4/0"), "eps=4/0"),
        (lambda: PGD(eps=0), "eps=0 must be a positive number"),
        (lambda: PGD(step="some"), "step=some"),
        (lambda: PGD(steps=0), "steps=0"),
        (lambda: PGD(steps=2.5), "steps=2.5 must be an integer"),
        (lambda: PGD(steps=10**400), "steps=a number of about 401 digits must be an integer of at most 64 bits"),
        (lambda: PGD(restarts=True), "restarts=True must be an integer"),
        (lambda: PGD(seed=-1), "seed=-1 must be at least 0"),
        (lambda: PGD(eps=float("nan")), "eps=nan must be a finite number"),
        (lambda: FGSM("inf"), "eps=inf must be a positive number"),
        (lambda: PGD(loss="hinge"), "unknown loss 'hinge'"),
        (lambda: PGD(norm="L1"), "unknown norm 'L1'"),
        (lambda: PGD(restarts=2, random_start=False), "restarts=2"),
        (lambda: AutoAttack(seed=-3), "seed=-3 must be at least 0"),
        (lambda: AutoAttack(version="fast"), "unknown version 'fast'"),
    ],
)
def test_bad_input(build, said):
    with pytest.raises(az.InputError, match=said):
        build()


@pytest.fixture(scope="module")
def linear():
    """A linear classifier by the logits' scale, images of which it is right by a margin that attacks can undo."""
    torch.manual_seed(0)
    weight = torch.randn(4, 48)
    pixels = torch.rand(64, 3, 4, 4)
    label = (pixels.flatten(1) @ weight.T).argmax(1)
    return (lambda scale: lambda images: scale * (images.flatten(1) @ weight.T)), pixels, label


class TestImagesWithoutGradient:
    """Where the loss saturates an attack does not attack; what withstands it has not been tested."""

    def accuracy(self, model, attacked, label):
        return (model(attacked).argmax(1) == label).double().mean().item()

    @pytest.mark.parametrize("attack", [FGSM, lambda eps, loss: PGD(eps, eps / 4, 8, loss=loss)])
    def test_scaled_logits(self, linear, attack):
        model, pixels, label = linear
        robust = {}
        for loss in ("cross_entropy", "margin", "dlr"):
            for scale in (1, 1e5):
                found = attack(0.05, loss=loss).run(model(scale), pixels, label)
                robust[loss, scale] = self.accuracy(model(1), found.pixels, label), int(found.no_gradient.sum())
        assert 0.1 < robust["cross_entropy", 1][0] < 0.9
        assert robust["cross_entropy", 1][1] == 0
        assert robust["cross_entropy", 1e5][0] > robust["cross_entropy", 1][0] + 0.2
        assert robust["cross_entropy", 1e5][1] > 10
        for loss in ("margin", "dlr"):
            assert robust[loss, 1e5] == (pytest.approx(robust[loss, 1][0], abs=0.02), 0)

    def test_a_warning_says_how_many(self, linear):
        model, pixels, label = linear
        with pytest.warns(UserWarning, match="FGSM: the loss has no gradient at 64 of 64 images"):
            FGSM(0.05)(model(1e9), pixels, label)

    def test_a_model_that_cannot_be_differentiated(self, linear):
        model, pixels, label = linear
        assert FGSM(0.05).run(lambda images: model(1)(images.detach()), pixels, label).no_gradient.all()
        assert FGSM(0.05).run(lambda images: model(1)(images.round()), pixels, label).no_gradient.sum() > 0

    def test_only_where_the_model_is_right(self, linear):
        _, pixels, label = linear
        found = FGSM(0.05).run(lambda images: F.one_hot(torch.zeros_like(label), 4).float(), pixels, label)
        assert torch.equal(found.no_gradient, label == 0)

    def test_small_gradients_are_none_the_less_followed(self, linear):
        model, pixels, label = linear
        robust = [
            self.accuracy(model(1), PGD(0.3, 0.1, 4, norm="L2", loss="margin")(model(scale), pixels, label), label)
            for scale in (1, 1e-18)
        ]
        assert robust[0] == robust[1] < 0.9

    @settings(max_examples=30, deadline=None)
    @given(
        values=st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=6, unique=True), scale=st.floats(0.1, 1e4)
    )
    def test_dlr_is_that_of_its_authors(self, values, scale):
        logits, label = torch.tensor([values]), torch.tensor([0])
        ordered = logits.sort().values[0]
        other = ordered[-2] if values[0] == ordered[-1] else ordered[-1]
        expected = (other - values[0]) / (ordered[-1] - ordered[-3] + 1e-12)
        assert_close(losses_of(logits, label, "dlr")[0], expected)

    def test_losses_need_classes(self, linear):
        _, pixels, label = linear
        two = lambda images: images.flatten(1)[:, :2]  # noqa: E731
        with pytest.raises(az.InputError, match="loss=dlr needs at least 3 classes, the model has 2"):
            FGSM(loss="dlr")(two, pixels, label % 2)
        assert FGSM(0.1, loss="margin")(two, pixels, label % 2).shape == pixels.shape
        with pytest.raises(az.InputError, match="loss=margin needs at least 2 classes, the model has 1"):
            FGSM(loss="margin")(lambda images: images.flatten(1)[:, :1], pixels, label % 1)


class Root(nn.Module):
    """The gradient of a root at 0 is infinite, and NaN after a multiplication by 0."""

    def forward(self, images):
        return images.flatten(1)[:, :3] + 0 * (images - images).sqrt().sum()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda images: images.flatten(1)[:, :3] / 0, "logits under PGD of 4 of 4 images are not finite"),
        (lambda images: images.flatten(1)[:, :3] * torch.nan, r"\(nan at place 0\)"),
        (Root(), "gradients under PGD of 4 of 4 images are not finite"),
    ],
)
def test_what_is_not_finite_stops_an_attack(model, said):
    with pytest.raises(az.InputError, match=said):
        PGD()(model, 0.1 + 0.8 * torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.long))


def test_an_attack_tells_what_it_does(trained, monkeypatch):
    package = pytest.importorskip("pyautoattack")

    class Brief(package.AutoAttack):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.apgd.n_iter = self.apgd.n_iter_orig = self.fab.n_iter = self.square.n_queries = 2
            self.apgd_targeted.n_iter = self.apgd_targeted.n_iter_orig = 2

    monkeypatch.setattr(auto_attack, "_autoattack", lambda: Brief)
    pixels, label = pictures(4, seed=3)
    label = trained(pixels).argmax(1)
    told = []
    AutoAttack(eps=0.003).run(nn.Sequential(trained, nn.ZeroPad1d((0, 2))), pixels, label, report=told.append)
    assert {line.partition(":")[0] for line in told} >= {"AutoAttack APGDAttack", "AutoAttack SquareAttack"}
    assert "AutoAttack SquareAttack: pass 2 over 4 images" in told
    del told[:]
    PGD(steps=3).run(trained, pixels, label, report=told.append)
    assert told == [f"PGD: pass {number} over 4 images" for number in (1, 2, 3)]


def test_autoattack_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    with pytest.raises(az.InputError, match=r"attention_zoo\[robustness\]"):
        AutoAttack()


def test_autoattack_is_at_least_as_strong_as_pgd(trained):
    pytest.importorskip("pyautoattack")
    pixels, label = pictures(12, seed=3)
    model = nn.Sequential(trained, nn.ZeroPad1d((0, 2)))  # its losses need four classes
    before = torch.get_rng_state()
    with torch.inference_mode():
        attacked = AutoAttack(eps=0.03)(model, pixels.clone(), label.clone())
        simple = PGD(0.03, 0.006, 10)(model, pixels.clone(), label.clone())
    assert torch.equal(torch.get_rng_state(), before)
    assert (attacked - pixels).abs().max() <= 0.03 + ROUNDING
    right = [(model(images).argmax(1) == label).sum() for images in (attacked, simple, pixels)]
    assert right[0] <= right[1] < right[2]
    with pytest.raises(az.InputError, match="at least 4 classes, the model has 3"):
        AutoAttack()(trained, pixels, label)
