"""Attention maps of models, what is drawn of them, and where."""

import numpy as np
import pytest
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis import (
    Cell,
    LayerInput,
    Subject,
    atom_pictures,
    attention_maps,
    attention_pictures,
    cluster_pictures,
    observe,
    overlay,
    sheet,
    side_by_side,
    step_pictures,
)
from attention_zoo.analysis.figures import scaled

VIT = {"embed_dim": 24, "depth": 3, "num_heads": 2, "patch_size": 4, "num_classes": 3}
HEIGHT, WIDTH = 12, 20  # a grid of 3 x 5
GRID = (3, 5)


class Left(az.SelfMixer):
    """Reads the token before it; the first reads none."""

    def mix(self, q, k, v):
        return torch.cat((torch.zeros_like(v[:, :, :1]), v[:, :, :-1]), 2)


class Fourth(az.SelfMixer):
    """Every token reads the third before the last, and minus half of the last."""

    def mix(self, q, k, v):
        return (v[:, :, -3:-2] - 0.5 * v[:, :, -1:]).expand_as(v)


def vit(mixer=None, size=(HEIGHT, WIDTH), **options):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=size, **{**VIT, **options})
    return az.swap_mixers(model, mixer) if mixer else model


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def last(model, images):
    return observe(model, images).layers[0]


class TestCollecting:
    def test_each_layers_map_is_that_of_its_input(self, images):
        model = vit("DotProduct").eval()
        maps = attention_maps(model, images, "0-2")
        assert list(maps) == [0, 1, 2]
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        for layer, block in enumerate(model.blocks):
            assert_close(maps[layer], block.attn.attention_map(block.norm1(tokens)))
            tokens = block(tokens)
        assert maps[0].shape == (2, 2, 16, 16)

    def test_timms_attention_is_read_as_dot_product_and_left_in_the_model(self, images):
        model = vit()
        kept = type(model.blocks[0].attn)
        maps = attention_maps(model, images, "last-2")
        assert type(model.blocks[0].attn) is kept
        expected = attention_maps(az.swap_mixers(model, "DotProduct"), images, "last-2")
        assert_close(maps, expected)

    def test_output_is_the_models_and_modes_are_kept(self, images):
        model = vit("VarsD", drop_rate=0.5)
        model.blocks[1].eval()
        output = observe(model, images).output
        modes = model.training, model.blocks[0].training, model.blocks[1].training
        assert modes == (True, True, False)
        with torch.no_grad():
            assert_close(output, model.eval()(images))
        assert not any(module._forward_pre_hooks for module in model.modules())

    @pytest.mark.parametrize("name", az.list_mixers("self"))
    def test_every_mixer(self, name, images):
        seen = last(vit(name), images)
        assert (type(seen.mixer).__name__, seen.grid, seen.num_prefix_tokens) == (name, GRID, 1)
        pictures = attention_pictures(seen, heads="each")
        assert {title: tuple(picture.shape) for title, picture in pictures.items()} == {
            "head 0": (2, *GRID),
            "head 1": (2, *GRID),
        }
        assert_close(torch.stack(list(pictures.values())).mean(0), attention_pictures(seen)[""])

    def test_grid_of_a_model_whose_images_have_any_size(self):
        model = vit("DotProduct", size=(16, 16), dynamic_img_size=True)
        seen = last(model, torch.randn(1, 3, 16, 36))  # 36 tokens, which are no square all the same
        assert seen.grid == (4, 9)

    def test_grid_of_a_model_whose_mixers_were_not_told(self, images):
        attn_layer = az.attn_layer("DotProduct")
        model = timm.create_model("vit_tiny_patch16_224", img_size=(HEIGHT, WIDTH), attn_layer=attn_layer, **VIT)
        seen = last(model, images)
        assert (seen.grid, seen.num_prefix_tokens) == (GRID, 1)

    def test_stages_with_grids_of_their_own(self):
        model = timm.create_model("rvt_tiny", mixer="VarsD", img_size=(64, 96)).eval()
        layers = observe(model, torch.randn(1, 3, 64, 96), "0-11").layers
        grids = [seen.grid for seen in layers]
        assert len(set(grids)) > 1
        for seen in layers:
            assert seen.grid[0] * 3 == seen.grid[1] * 2
            assert attention_pictures(seen)[""].shape == (1, *seen.grid)

    def test_model_that_looks_twice_is_seen_in_its_second_pass(self, images):
        model = timm.create_model("absvit_tiny_patch16_224", img_size=32)
        seen = last(model, torch.randn(1, 3, 32, 32))
        assert seen.grid == (2, 2) and seen.has_class_token

    @pytest.mark.parametrize(("mode", "mixer"), [("absvit", "VarsD"), ("qkv", "Probabilistic"), ("mask_att", "VarsS")])
    def test_what_a_layer_hears_from_above_is_seen(self, mode, mixer):
        torch.manual_seed(0)
        options = {"img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 2, "patch_size": 8}
        model = timm.create_model(
            "absvit_tiny_patch16_224", mixer=mixer, top_down={"mode": mode, "alpha": 9}, **options
        )
        image = torch.randn(1, 3, 32, 32)
        seen = last(model, image)
        second = model.eval().second_pass(model.first_pass(image))
        heard = seen.signal.get("top_down", seen.signal.get("value_gate"))
        assert_close(heard, second.similarity if mode == "mask_att" else second.signals[1])
        expected = seen.mixer.attention_map(seen.tokens, **seen.signal)
        assert_close(attention_maps(model, image)[1], expected)
        assert_close(attention_pictures(seen)[""], seen.on_grid(expected.mean((1, 2))))
        assert not torch.allclose(expected, seen.mixer.attention_map(seen.tokens))

    def test_refusals(self, images):
        with pytest.raises(az.InputError, match="layers '7': the model has layers 0-2"):
            observe(vit("VarsD"), images, "7")
        with pytest.raises(az.InputError, match="ResNet has no attention"):
            observe(timm.create_model("resnet18"), images)


class TestPictures:
    def test_left_neighbour(self, images):
        seen = last(vit(Left), images)
        for row, column in ((0, 1), (1, 3), (2, 4)):
            picture = attention_pictures(seen, query=f"{row},{column}")[""]
            expected = torch.zeros(GRID)
            expected[row, column - 1] = 1
            assert_close(picture, expected.expand(2, -1, -1))

    def test_prefix_is_left_out(self, images):
        seen = last(vit(Left), images)
        assert seen.num_prefix_tokens == 1
        assert_close(attention_pictures(seen, query="0,0")[""], torch.zeros(2, *GRID))  # it reads the class token
        assert_close(attention_pictures(seen, query="cls")[""], torch.zeros(2, *GRID))

    def test_one_token_and_negative_entries(self, images):
        seen = last(vit(Fourth, num_classes=2, reg_tokens=3), images)
        assert seen.num_prefix_tokens == 4
        expected = torch.zeros(GRID)
        expected[2, 2], expected[2, 4] = 1, -0.5
        for query in ("mean", "cls", "1,1"):
            assert_close(attention_pictures(seen, query=query)[""], expected.expand(2, -1, -1))

    def test_mean_query_is_the_mean_over_queries(self, images):
        seen = last(vit("Performer", class_token=False, global_pool="avg"), images)
        pictures = [attention_pictures(seen, query=f"{r},{c}")[""] for r in range(3) for c in range(5)]
        assert_close(attention_pictures(seen)[""], torch.stack(pictures).mean(0))

    @pytest.mark.parametrize("query", ["3,0", "0,5", "-1,0", "1", "1,", "middle", "1,2,3", ""])
    def test_queries_that_are_none(self, images, query):
        with pytest.raises(az.InputError, match="query"):
            attention_pictures(last(vit("DotProduct"), images), query=query)

    def test_no_class_token(self, images):
        model = vit("DotProduct", class_token=False, reg_tokens=2, global_pool="avg")
        with pytest.raises(az.InputError, match="DotProduct: query 'cls': this model has no class token"):
            attention_pictures(last(model, images), query="cls")

    @pytest.mark.parametrize("name", ["VarsS", "VarsD", "VarsSD"])
    def test_steps_end_in_the_map(self, images, name):
        seen = last(vit(name), images)
        pictures = step_pictures(seen)
        assert list(pictures) == ["step 0", "step 1", "step 2", "step 3"]
        assert_close(pictures["step 3"], attention_pictures(seen)[""])
        assert "step 2, head 1" in step_pictures(seen, heads="each")

    @pytest.mark.parametrize("name", ["VarsS", "VarsD", "VarsSD"])
    def test_atoms_are_the_strongest_of_the_dictionary(self, images, name):
        seen = last(vit(name), images)
        pictures = list(atom_pictures(seen, 3).values())
        atoms, v = seen.mixer.dictionary(seen.tokens), seen.mixer.project(seen.tokens)[2]
        for image in range(2):
            energy = {}
            for head in range(2):
                for atom in range(atoms.shape[3]):
                    energy[head, atom] = (atoms[image, head, :, atom] @ v[image, head]).square().sum().item()
            order = sorted(energy, key=energy.get, reverse=True)
            for picture, (head, atom) in zip(pictures, order, strict=False):
                assert_close(picture[image], atoms[image, head, 1:, atom].reshape(GRID))

    def test_no_more_atoms_than_there_are(self, images):
        seen = last(vit("VarsD"), images)
        assert len(atom_pictures(seen, 10**6)) == seen.mixer.dictionary(seen.tokens).shape[3] * 2
        with pytest.raises(az.InputError, match="VarsD: 0 atoms"):
            atom_pictures(seen, 0)

    def test_clusters_are_labels(self, images):
        seen = last(vit("KMeans"), images)
        pictures = cluster_pictures(seen)
        assert list(pictures) == ["head 0", "head 1"]
        labels = seen.mixer.assignments(seen.tokens).argmax(2)
        assert torch.equal(pictures["head 1"].flatten(1), labels[:, 1, 1:])

    @pytest.mark.parametrize("read", [step_pictures, lambda seen: atom_pictures(seen, 2), cluster_pictures])
    def test_what_a_reading_has_not(self, images, read):
        with pytest.raises(az.InputError, match="^DotProduct: no "):
            read(last(vit("DotProduct"), images))


class TestDrawing:
    def test_scale_starts_at_the_least_or_at_zero(self):
        assert_close(scaled(torch.tensor([[2.0, 4.0, 3.0]])), torch.tensor([[0.0, 1.0, 0.5]]))
        assert_close(scaled(torch.tensor([[-2.0, 4.0, 0.0]])), torch.tensor([[-0.5, 1.0, 0.0]]))
        assert_close(scaled(torch.tensor([[-2.0, 1.0]])), torch.tensor([[-1.0, 0.5]]))

    @pytest.mark.parametrize("value", [0.0, 1 / 3])
    def test_equal_entries_show_nothing(self, value):
        picture = torch.full((3, 4), value) * (1 + 1e-7 * torch.randn(3, 4))
        assert not scaled(picture).any()

    @pytest.mark.parametrize(("row", "column"), [(0, 4), (2, 1)])
    def test_the_place_that_is_read_lights_up(self, row, column):
        picture = torch.zeros(3, 5)
        picture[row, column] = 1
        drawn = overlay(torch.zeros(3, 30, 50), picture)
        assert drawn.shape == (30, 50, 3)
        y, x = divmod(int(drawn.sum(-1).argmax()), 50)
        assert (y // 10, x // 10) == (row, column)
        assert drawn[10 * row + 5, 10 * column + 5].sum() > 1.3
        far = drawn[(10 * row + 20) % 30, (10 * column + 25) % 50]
        assert far.max() < 0.05

    def test_negative_is_blue(self):
        red, green, blue = overlay(torch.zeros(3, 8, 8), torch.tensor([[-1.0, 1.0]]))[4, 0]
        assert blue > green > red
        red, _, blue = overlay(torch.zeros(3, 8, 8), torch.tensor([[-1.0, 1.0]]))[4, 7]
        assert red > blue

    def test_labels_have_sharp_borders_and_a_colour_each(self):
        drawn = overlay(torch.zeros(3, 4, 6), torch.tensor([[0, 1, 2]]))
        assert len(drawn.flatten(0, 1).unique(dim=0)) == 3
        assert_close(drawn[:, 0], drawn[:, 1])

    def test_image_stays_visible(self):
        image = torch.zeros(3, 4, 4)
        image[:, :, 2:] = 1
        drawn = overlay(image, torch.ones(2, 2))
        assert (drawn[:, 2:] - drawn[:, :2]).min() > 0.3

    def test_layout(self):
        image = torch.zeros(3, 40, 80, dtype=torch.uint8)
        rows = [
            [Cell(image), Cell(image, torch.rand(2, 4), "cat (93 %)")],
            [Cell(image), Cell(image, torch.rand(2, 4))],
        ]
        figure = sheet(rows, ["image", "VarsD"], ["one", "two"])
        tiles = [axes for axes in figure.axes if axes.images[0].get_array().shape[:2] == (240, 480)]
        inches = np.tile(figure.get_size_inches(), 2)
        boxes = np.array([axes.get_position().bounds * inches for axes in tiles]).reshape(2, 2, 4)
        assert np.allclose(boxes[..., 2] / boxes[..., 3], 2)  # as wide as the image
        assert (boxes[:, 0, 0] < boxes[:, 1, 0]).all() and (boxes[0, :, 1] > boxes[1, :, 1]).all()
        assert [axes.get_xlabel() for axes in tiles] == ["", "cat (93 %)", "", ""]

    def test_text_is_inside_the_figure(self):
        image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        cells = [Cell(image), Cell(image, torch.randn(2, 2), "great white shark (100 %)")]
        titles = ["image", "SomeMixer\nof_a_run_with_quite_a_long_name, layer 11, step 3"]
        figure = sheet([cells], titles, ["a_photograph_with_a_long_name_too\ngaussian_noise 5"])
        FigureCanvasAgg(figure).draw()
        for text in [*figure.texts, *(axes.xaxis.label for axes in figure.axes)]:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1

    def test_rows_and_columns(self):
        images = {name: torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8) for name in ("one", "two")}
        models = vit("VarsD"), vit("DotProduct"), vit("VarsD")
        names = "first", None, None
        subjects = [
            Subject(lambda size, model=model: model, prepare=lambda image: image, class_names="xyz", name=name)
            for model, name in zip(models, names, strict=True)
        ]
        black = {"black": torch.zeros_like}
        figure = side_by_side(subjects, images, layers="0-1", corruptions=black)
        tiles = [axes for axes in figure.axes if axes.images[0].get_array().shape[:2] == (21 * HEIGHT, 21 * WIDTH)]
        assert len(tiles) == 4 * 7
        texts = [text.get_text() for text in figure.texts]
        assert (
            "VarsD\nfirst\nlayer 0" in texts and "DotProduct\nlayer 1" in texts and "VarsD\nmodel 3\nlayer 1" in texts
        )
        assert {"one", "one\nblack", "two", "two\nblack"} <= {text.replace("\n\n", "\n") for text in texts}
        assert not tiles[7].images[0].get_array().any() and tiles[0].images[0].get_array().any()
        with torch.no_grad():
            x = (images["two"] / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
                [0.229, 0.224, 0.225]
            )[:, None, None]
            probability, label = models[1].eval()(x[None])[0].softmax(-1).max(-1)
        assert tiles[14 + 3].get_xlabel() == f"{'xyz'[label]} ({100 * probability:.0f} %)"


def test_pictures_that_are_no_numbers_are_not_drawn():
    with pytest.raises(az.InputError, match="pictures of DotProduct .* are not finite"):
        side_by_side(
            [Subject(lambda size: vit("DotProduct"), prepare=lambda image: image)],
            {"grey": torch.full((3, HEIGHT, WIDTH), 90, dtype=torch.uint8)},
            lambda seen: {"": torch.full((1, *GRID), torch.nan)},
        )


def test_maps_of_a_layer_by_hand():
    mixer = az.create_mixer("DotProduct", 8, 2, grid=(2, 3))
    seen = LayerInput(0, mixer, torch.randn(1, 6, 8), (2, 3), 0, False)
    assert_close(attention_pictures(seen)[""].sum(), torch.tensor(1.0))
