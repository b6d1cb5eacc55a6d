"""Matching and losses of mask transformers: brute force, values by hand, and the limits they should have."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder import MaskOutputs, MaskPrediction
from tasks.mask_losses import LossWeights, MaskCriterion, Sampling, Segments, match, segments_of_batch, segments_of_mask
from tasks.mask_losses.losses import (
    class_loss,
    contrastive_loss,
    dice_loss,
    mask_id_loss,
    sample_pixels,
    semantic_loss,
)
from tasks.mask_losses.matching import mask_similarity, matched_targets

CLASSES, QUERIES = 4, 5


def scene(seed=0, batch=2, size=(8, 12)):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, CLASSES, (batch, size[0] // 4, size[1] // 4), generator=generator)
    mask = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
    mask[:, 0, :3] = 255
    return mask


def prediction(seed=0, batch=2, size=(8, 12), queries=QUERIES):
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(batch, 6, *size, generator=generator), dim=1)
    masks = 2 * torch.randn(batch, queries, *size, generator=generator)
    return MaskPrediction(torch.randn(batch, queries, CLASSES + 1, generator=generator), masks, features)


def perfect(mask, order, size=None):
    """The prediction that has class ``c`` in query ``order[c]``, and is sure of it."""
    batch = len(mask)
    masks = torch.full((batch, QUERIES, *mask.shape[1:]), -50.0)
    classes = torch.full((batch, QUERIES, CLASSES + 1), -50.0)
    classes[..., -1] = 50.0
    features = torch.zeros(batch, CLASSES, *mask.shape[1:])
    for image in range(batch):
        for label in mask[image].unique().tolist():
            if label == 255:
                continue
            inside = mask[image] == label
            masks[image, order[label]][inside] = 50.0
            features[image, label][inside] = 1.0
            classes[image, order[label], -1] = -50.0
            classes[image, order[label], label] = 50.0
    # void pixels belong to the query that has no segment, as a void query's mask should
    spare = next(query for query in range(QUERIES) if query not in order)
    masks[:, spare][mask == 255] = 50.0
    if size:
        masks, features = (F.interpolate(x, size, mode="nearest") for x in (masks, features))
    return MaskPrediction(classes, masks, features)


# targets


def test_every_class_of_a_mask_is_a_segment():
    mask = torch.tensor([[2, 2, 255], [0, 2, 0]])
    found = segments_of_mask(mask)
    assert found.labels.tolist() == [0, 2]
    assert found.masks.tolist() == [[[0, 0, 0], [1, 0, 1]], [[1, 1, 0], [0, 1, 0]]]


def test_segments_of_panoptic_data():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :, :2], masks[1, 0, 2], masks[2, 2:, 2:] = True, True, True
    given = {"masks": masks, "labels": torch.tensor([1, 1, 3]), "crowd": torch.tensor([False, False, True])}
    (found,) = segments_of_batch({"segments": [given]}, (2, 2))
    assert found.labels.tolist() == [1]  # the second is too small, the third is a crowd
    assert found.masks.tolist() == [[[1, 0], [1, 0]]]
    empty = {"masks": masks[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    (found,) = segments_of_batch({"segments": [empty]}, (2, 2))
    assert found.masks.shape == (0, 2, 2)


# matching


@settings(max_examples=40, deadline=None)
@given(queries=st.integers(1, 5), labels=st.lists(st.integers(0, CLASSES - 1), max_size=5), seed=st.integers(0, 9999))
def test_matching_equals_brute_force(queries, labels, seed):
    generator = torch.Generator().manual_seed(seed)
    n = len(labels)
    owner = torch.randint(-1, max(n, 1), (4, 6), generator=generator)
    masks = (owner == torch.arange(n)[:, None, None]).float()
    target = Segments(masks, torch.tensor(labels, dtype=torch.int64))
    classes = torch.randn(queries, CLASSES + 1, generator=generator)
    predicted = 3 * torch.randn(queries, 4, 6, generator=generator)
    found = match(classes, predicted, target)
    score = classes.softmax(-1)[:, target.labels] * mask_similarity(predicted, masks)
    if queries <= n:
        ways = [list(zip(range(queries), way, strict=True)) for way in itertools.permutations(range(n), queries)]
    else:
        ways = [list(zip(way, range(n), strict=True)) for way in itertools.permutations(range(queries), n)]
    best = max(sum(float(score[pair]) for pair in way) for way in ways)
    assert len(found.queries) == min(queries, n)
    assert float((found.dice * found.class_probability).sum()) == pytest.approx(best, abs=1e-5)
    assert sorted(set(found.queries.tolist())) == sorted(found.queries.tolist())


def test_similarity_by_hand():
    logits = torch.tensor([[[0.8, 0.5, 0.1, 0.9]], [[0.2, 0.5, 0.9, 0.1]]]).log()
    masks = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]])  # the last pixel is void
    first = [2 * 1.3 / (1.4 + 2), 2 * 0.1 / (1.4 + 1)]
    second = [2 * 0.7 / (1.6 + 2), 2 * 0.9 / (1.6 + 1)]
    torch.testing.assert_close(mask_similarity(logits, masks), torch.tensor([first, second]), atol=1e-4, rtol=0)


def test_what_queries_should_predict():
    mask = scene()
    final = prediction()
    segments = [segments_of_mask(image) for image in mask]
    targets = matched_targets(final.class_logits, final.mask_logits, segments)
    assert torch.equal(targets.void, mask == 255)
    for image, segment in enumerate(segments):
        matched = targets.labels[image] != CLASSES
        assert sorted(targets.labels[image, matched].tolist()) == segment.labels.tolist()
        assert (targets.mask_weight[image][~matched] == 0).all() and (targets.mask_weight[image][matched] > 0).all()
        for query in range(QUERIES):
            wanted = mask[image] == (targets.labels[image, query] if matched[query] else -1)
            assert torch.equal(targets.masks[image, query], wanted.float())
        for label in segment.labels.tolist():
            inside = mask[image] == label
            assert (targets.area[image][inside] == inside.sum()).all()
    probability = final.mask_logits.softmax(1)
    void_part = (probability * targets.void[:, None]).flatten(2).sum(-1) / probability.flatten(2).sum(-1)
    unmatched = targets.labels == CLASSES
    torch.testing.assert_close(targets.class_weight[unmatched], void_part[unmatched], atol=1e-4, rtol=1e-4)


# losses


def test_class_loss_by_hand():
    logits = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]]).log()
    loss = class_loss(logits, torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.1]]))
    expected = (0.75 * 0.5 * -math.log(0.6) + 0.25 * 0.1 * -math.log(0.5)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_dice_loss_by_hand():
    logits = torch.tensor([[[[0.8, 0.5, 0.3]], [[0.2, 0.5, 0.7]]]]).log()
    masks = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    void = torch.tensor([[[False, False, True]]])
    loss = dice_loss(logits, masks, torch.tensor([[0.4, 0.0]]), void)
    expected = 0.75 * 0.4 * (1 - (2 * 1.3 + 1) / (1.3 + 2 + 1)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_mask_id_loss_by_hand():
    logits = torch.tensor([[[[0.8, 0.5, 0.3]], [[0.2, 0.5, 0.7]]]]).log()
    masks = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]])
    void = torch.tensor([[[False, False, True]]])
    expected = (-math.log(0.8) - math.log(0.5)) / 2
    assert float(mask_id_loss(logits, masks, void)) == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_by_hand():
    """Two segments of two pixels, features orthogonal between segments and equal within."""
    features = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]]])
    masks = features.clone()
    none, area = torch.zeros(1, 1, 4, dtype=torch.bool), torch.full((1, 1, 4), 2.0)
    options = {"samples": 4, "exponent": 1.5, "temperature": 0.5}
    loss = contrastive_loss(features, masks, none, area, **options)
    assert float(loss) == pytest.approx(-math.log(math.exp(2) / (2 * math.exp(2) + 2)), rel=1e-5)
    swapped = features[..., [0, 2, 1, 3]]
    assert contrastive_loss(swapped, masks, none, area, **options) > loss


def test_semantic_loss_by_hand():
    logits = torch.tensor([[[[0.8, 0.5, 0.3]], [[0.2, 0.5, 0.7]]]]).log()
    mask = torch.tensor([[[0, 1, 255]]])
    area = torch.ones(1, 1, 3)
    expected = (-math.log(0.8) - math.log(0.5)) / 2
    for samples in (0, 3, 2):  # the void pixel comes last
        loss = semantic_loss(logits, mask, area, ignore_index=255, samples=samples, exponent=2.0)
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_sampling_favours_small_segments_and_leaves_void_for_last():
    area = torch.full((1, 1, 100), 90.0)
    area[..., :10] = 10.0
    void = torch.zeros(1, 1, 100, dtype=torch.bool)
    void[..., 50:] = True
    torch.manual_seed(0)
    draws = [sample_pixels(area, void, 5, 1.5)[0] for _ in range(300)]
    assert all(len(set(draw.tolist())) == 5 and draw.max() < 50 for draw in draws)
    first = torch.stack([draw[0] for draw in draws])
    odds = 10 * 10**-1.5 / (10 * 10**-1.5 + 40 * 90**-1.5)
    assert float((first < 10).float().mean()) == pytest.approx(odds, abs=0.06)
    assert sorted(sample_pixels(area, void, 1000, 1.5)[0].tolist()) == list(range(100))


# the criterion


def test_losses_of_a_perfect_prediction_are_zero():
    mask = scene()
    right = perfect(mask, order=[2, 0, 3, 1])
    outputs = MaskOutputs((right,), right)
    losses = MaskCriterion(LossWeights(contrastive=0.0))(outputs, {"mask": mask})
    assert set(losses) == {"classes", "dice", "mask_id"}
    for loss in losses.values():
        assert float(loss) == pytest.approx(0, abs=1e-4)


def test_layers_share_the_final_matching():
    """A layer that is right up to the order of its queries is wrong."""
    mask = scene()
    right, permuted = perfect(mask, order=[2, 0, 3, 1]), perfect(mask, order=[0, 2, 3, 1])
    criterion = MaskCriterion(LossWeights(contrastive=0.0))
    same = criterion(MaskOutputs((right,), right), {"mask": mask})
    other = criterion(MaskOutputs((permuted,), right), {"mask": mask})
    assert float(other["mask_id"]) > float(same["mask_id"]) + 1
    assert float(criterion(MaskOutputs((), permuted), {"mask": mask})["mask_id"]) == pytest.approx(0, abs=1e-4)


def test_layers_of_other_sizes_are_compared_at_the_final_size():
    mask = scene()
    small = prediction(1, size=(4, 6))
    layer = MaskPrediction(
        small.class_logits, *(F.interpolate(x, (8, 12), mode="bilinear") for x in (small.mask_logits, small.features))
    )
    criterion = MaskCriterion(sampling=Sampling(contrastive_samples=96))
    first = criterion(MaskOutputs((small,), prediction()), {"mask": mask})
    second = criterion(MaskOutputs((layer,), prediction()), {"mask": mask})
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_weights():
    mask = scene()
    outputs = MaskOutputs((), prediction(), torch.randn(2, CLASSES, 2, 3))
    one = MaskCriterion(LossWeights(1, 1, 1, 1, 1), Sampling(96, semantic_samples=0))(outputs, {"mask": mask})
    kmax = MaskCriterion(None, Sampling(96, semantic_samples=0))(outputs, {"mask": mask})
    ratios = {name: float(kmax[name] / one[name]) for name in one}
    assert ratios == pytest.approx({"classes": 3, "dice": 3, "mask_id": 0.3, "contrastive": 1, "semantic": 1})


def test_panoptic_data_train_as_their_semantic_masks_do():
    mask = scene()
    segments = [{"masks": s.masks.bool(), "labels": s.labels} for s in map(segments_of_mask, mask)]
    criterion = MaskCriterion(sampling=Sampling(contrastive_samples=96))
    outputs = MaskOutputs((), prediction())
    first, second = criterion(outputs, {"mask": mask}), criterion(outputs, {"mask": mask, "segments": segments})
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("queries", [2, QUERIES])
@pytest.mark.parametrize("void", ["some", "all"])
def test_too_few_queries_and_empty_images(queries, void):
    mask = scene() if void == "some" else torch.full((2, 8, 12), 255)
    given = prediction(queries=queries)
    given.mask_logits.requires_grad_()
    losses = MaskCriterion(sampling=Sampling(contrastive_samples=20))(MaskOutputs((), given), {"mask": mask})
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert given.mask_logits.grad.isfinite().all()


def test_the_order_of_queries_does_not_matter():
    mask, given = scene(), prediction()
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = MaskPrediction(given.class_logits[:, order], given.mask_logits[:, order], given.features)
    criterion = MaskCriterion(sampling=Sampling(contrastive_samples=96))
    first, second = (criterion(MaskOutputs((), x), {"mask": mask}) for x in (given, moved))
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LossWeights(dice=-1.0), "loss_weights.dice=-1.0 must not be negative"),
        (lambda: Sampling(contrastive_samples=0), "contrastive_samples"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make()
