"""What a model looks at under a prior, and how a prior is named."""

import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis import Subject
from attention_zoo.analysis.figures import overlay
from attention_zoo.analysis.priors import class_index, first_name, prior_of
from attention_zoo.analysis.top_down import Look, drawn_layer, top_down_sheet

NUMBERS = tuple(ImageNetInfo("imagenet-1k").label_names())
NAMES = tuple(first_name(text) for text in ImageNetInfo("imagenet-1k").label_descriptions())
OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 5, "num_heads": 2, "num_classes": 3}


def absvit(mode="absvit", mixer="DotProduct", name="absvit_tiny_patch8_224_gap", **options):
    torch.manual_seed(0)
    model = timm.create_model(name, mixer=mixer, top_down={"mode": mode}, **{**OPTIONS, **options})
    with torch.no_grad():
        for parameter in model.model.get_classifier().parameters():
            parameter.normal_()
        for parameter in getattr(model, "decoders", torch.nn.Identity()).parameters():
            parameter.normal_(std=0.3)  # what flows back shows
    return model


def subject(model, **options):
    return Subject(lambda size: model, lambda image: image, **{"class_names": ["cat", "dog", "eel"], **options})


@pytest.fixture
def images():
    return {"one": torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))}


def tiles(figure):
    """Every tile of a sheet: what is drawn and what is written below."""
    axes = [axes for axes in figure.axes if axes.images[0].get_array().shape[:2] == (256, 256)]
    return [(torch.as_tensor(each.images[0].get_array()), each.get_xlabel()) for each in axes]


class TestPriors:
    @pytest.mark.parametrize(
        ("word", "names", "place"),
        [
            ("dog", ("cat", "dog"), 1),
            ("DOG", ("cat", "dog"), 1),
            ("1", ("1", "0"), 0),  # a name comes before a place
            ("1", ("cat", "dog"), 1),
            ("hen", NAMES, 8),
            ("n01514668", NAMES, 7),
            ("Tinca tinca", NUMBERS, 0),
            ("cock", NUMBERS, 7),
            ("tench", NUMBERS[:3], 0),
            ("great white shark", (NUMBERS[5], NUMBERS[2]), 1),
            ("2", None, 2),
        ],
    )
    def test_a_class_by_name_number_or_place(self, word, names, place):
        assert class_index(word, names, len(names or "abc")) == place

    @pytest.mark.parametrize(
        ("word", "names", "message"),
        [
            ("tirn", NAMES, "unknown class 'tirn'; did you mean"),
            ("n0144076", NUMBERS, "unknown class 'n0144076'; did you mean 'n01440764'"),
            ("doge", ("cat", "dog"), "did you mean 'dog'. choose from: cat, dog"),
            ("2", ("cat", "dog"), "prior '2': give a place from 0 to 1"),
            ("cat", None, "the classes of this model have no names; give a place from 0 to 2"),
            ("²", ("cat", "dog"), "unknown class '²'"),
            ("", ("cat", "dog"), "unknown class ''"),
        ],
    )
    def test_what_is_none(self, word, names, message):
        with pytest.raises(az.InputError, match=message) as caught:
            class_index(word, names, len(names or "abc"))
        assert len(str(caught.value).splitlines()) == 1

    def test_prototypes_and_the_learned_query(self):
        model = absvit()
        assert_close(prior_of(model, "eel", ["cat", "dog", "eel"]), model.get_classifier().weight[2].detach())
        assert prior_of(model, "learned", ["cat"]) is None
        assert prior_of(model, "learned", ["cat", "learned", "eel"]) is not None
        with pytest.raises(az.InputError, match="no classifier"):
            prior_of(absvit(num_classes=0), "0", None)


class TestSheet:
    @pytest.mark.parametrize("mixer", ["DotProduct", "VarsD", "Probabilistic"])
    def test_columns_are_the_two_passes(self, images, mixer):
        model = absvit(mixer=mixer)
        look = Look(["dog", "eel"], [1, 30], layer="2", norms="plain")
        shown = tiles(top_down_sheet([subject(model)], images, look))
        assert len(shown) == 2 * 5
        batch = subject(model).show(images["one"])[1]
        model.eval()
        with torch.no_grad():
            first = model.first_pass(batch, [2])
            second = model.second_pass(first, model.class_prior(2), alpha=30, keep=[2])
        large = images["one"].repeat_interleave(16, 1).repeat_interleave(16, 2) / 255

        def drawn(values):
            return overlay(large, values.reshape(4, 4)).clamp(0, 1)

        assert_close(shown[6][0], drawn(first.states[0][1].norm(dim=-1)[:, -16:]))
        assert_close(shown[7][0], drawn(second.similarity[:, -16:]))
        assert_close(shown[9][0], drawn(second.states[0][1].norm(dim=-1)[:, -16:]))
        assert not torch.equal(shown[8][0], shown[9][0])  # another alpha
        assert not torch.equal(shown[4][0], shown[9][0])  # another prior

    def test_the_caption_is_the_answer_under_the_prior(self, images):
        model = absvit()
        shown = tiles(top_down_sheet([subject(model)], images, Look(["dog"])))
        batch = subject(model).show(images["one"])[1]
        model.eval()
        names = ["cat", "dog", "eel"]
        for place, logits in ((1, model.model(batch)), (3, model(batch, model.class_prior(1)))):
            probability, label = logits.softmax(-1)[0].max(-1)
            assert shown[place][1] == f"{names[label]} ({100 * probability:.0f} %)"

    def test_norms_of_the_demonstration(self, images):
        model = absvit()
        shown = tiles(top_down_sheet([subject(model)], images, Look()))
        model.eval()
        with torch.no_grad():
            norms = model.first_pass(subject(model).show(images["one"])[1], [4]).states[0][1].norm(dim=-1)[0, -16:]
        cut = (norms - (0.7 * norms.max() + 0.3 * norms.min())).clamp(0)
        large = images["one"].repeat_interleave(16, 1).repeat_interleave(16, 2) / 255
        assert_close(shown[1][0], overlay(large, cut.view(4, 4)).clamp(0, 1))

    def test_modes_of_one_model_and_several_models(self, images):
        look = Look(["dog"], [3, 9], ["absvit", "feedback", "perceiver_io", "mask_att", "qkv"])
        figure = top_down_sheet([subject(absvit())], images, look)
        texts = [text.get_text() for text in figure.texts]
        for title in (
            "bottom-up\nlayer 4",
            "similarity",
            "top-down\nabsvit, α = 3",
            "top-down\nqkv, α = 9",
            "top-down\nmask_att",
        ):
            assert title in texts
        assert len(tiles(figure)) == 3 + 4 * 2 + 1  # masks of attention have no alpha
        two = [subject(absvit("mask_att"), name="masked"), subject(absvit("feedback"))]
        texts = [text.get_text() for text in top_down_sheet(two, images, Look(["dog"])).texts]
        assert "masked\ntop-down\nmask_att" in texts and "model 2\nbottom-up\nlayer 4" in texts
        assert "masked\nsimilarity" in texts and "model 2\nsimilarity" not in texts  # it asks for nothing

    def test_a_pyramid_and_a_class_token(self, images):
        pyramid = az.TopDown(timm.create_model("rvt_tiny", mixer="DotProduct", img_size=64, num_classes=3))
        large = {"one": images["one"].repeat(1, 4, 4)}
        assert len(tiles(top_down_sheet([subject(pyramid)], large, Look(["dog"], layer="5")))) == 4
        plain = absvit(name="absvit_tiny_patch16_224")
        assert len(tiles(top_down_sheet([subject(plain)], images, Look(["learned"])))) == 4
        assert plain.training

    def test_rows_of_corruptions(self, images):
        figure = top_down_sheet([subject(absvit())], images, Look(["dog", "learned"]), {"black": torch.zeros_like})
        names = {text.get_text().replace("\n\n", "\n") for text in figure.texts}
        assert {"one\nprior dog", "one\nblack\nlearned query"} <= names

    @pytest.mark.parametrize(
        ("layer", "depth", "place"),
        [(None, 12, 8), (None, 7, 3), (None, 6, 5), (None, 2, 1), ("last", 12, 11), ("3", 4, 3)],
    )
    def test_the_layer_that_is_drawn(self, layer, depth, place):
        assert drawn_layer(layer, depth) == place

    def test_refusals(self, images):
        with pytest.raises(az.InputError, match="VisionTransformer has no top-down pass.*--model.top_down absvit"):
            top_down_sheet([subject(absvit().model)], images, Look(["dog"]))
        with pytest.raises(az.InputError, match="mode='qkv' needs the feedback path"):
            top_down_sheet([subject(absvit("mask_att"))], images, Look(["dog"], modes=["qkv"]))
        with pytest.raises(az.InputError, match="mode 'feedback' has no learned query"):
            top_down_sheet([subject(absvit("feedback"))], images, Look(modes=["absvit"]))
        with pytest.raises(az.InputError, match="one layer"):
            top_down_sheet([subject(absvit())], images, Look(["dog"], layer="0-3"))
        with pytest.raises(az.InputError, match="alphas=.* must"):
            Look(["dog"], [-1.0])
        with pytest.raises(az.InputError, match="unknown class 'dgo'; did you mean 'dog'"):
            top_down_sheet([subject(absvit())], images, Look(["dgo"]))
