"""Naive twins of the clustering readings: one pixel and one centre at a time, float64, no shared helpers."""

import math

import torch


def nearest(centres, pixel, metric):
    """Index of the centre (L, D) nearest to one pixel (D,)."""
    best, best_score = 0, -math.inf
    for index, centre in enumerate(centres):
        score = (centre * pixel).sum() if metric == "dot" else -(centre - pixel).pow(2).sum()
        if score > best_score:
            best, best_score = index, score
    return best


def assign(centres, pixels, metric):
    """Nearest centre of every pixel: list of indices."""
    return [nearest(centres, pixel, metric) for pixel in pixels]


def hard_update(values, chosen, num_centres, reduce, empty):
    """Sum or mean (L, E) of the values (M, E) that chose each centre; ``empty`` (L, E) for means over nothing."""
    rows = []
    for centre in range(num_centres):
        members = [value for value, index in zip(values, chosen, strict=True) if index == centre]
        total = torch.stack(members).sum(0) if members else torch.zeros_like(values[0])
        if reduce == "mean":
            total = total / len(members) if members else empty[centre]
        rows.append(total)
    return torch.stack(rows)


def probabilities(centres, pixels, metric):
    """softmax over the centres, (L, M)."""
    scale = math.sqrt(centres.shape[-1])
    columns = []
    for pixel in pixels:
        scores = []
        for centre in centres:
            score = (centre * pixel).sum()
            if metric == "euclidean":
                score = score - (centre * centre).sum() / 2
            scores.append(torch.exp(score / scale))
        columns.append(torch.stack(scores) / sum(scores))
    return torch.stack(columns, 1)


def soft_update(values, weights, reduce):
    """Sum or mean (L, E) of the values (M, E) by the assignment (L, M)."""
    rows = []
    for row in weights:
        total = sum(weight * value for weight, value in zip(row, values, strict=True))
        rows.append(total / row.sum() if reduce == "mean" else total)
    return torch.stack(rows)


def per_head(reading, *tensors):
    """Apply a reading of (N, D) tensors to each sample and head of (B, H, N, D) tensors."""
    samples = [
        torch.stack([reading(*(t[b, h] for t in tensors)) for h in range(tensors[0].shape[1])])
        for b in range(tensors[0].shape[0])
    ]
    return torch.stack(samples)


def softmax_read(queries, keys, values):
    """Each query's mean of the values, weighted by exp(q.k / sqrt(d))."""
    rows = []
    for query in queries:
        scores = [torch.exp((query * key).sum() / math.sqrt(len(query))) for key in keys]
        rows.append(sum(score * value for score, value in zip(scores, values, strict=True)) / sum(scores))
    return torch.stack(rows)


def k_means_mixer(q, k, v, learned, iterations, metric, reduce):
    """Tokens (N, D) of one head through learned centres (L, D)."""
    centres, count = learned, len(learned)
    size = len(k) / count if reduce == "sum" else 1
    for _ in range(iterations):
        chosen = assign(centres, k, metric)
        centres = hard_update(k, chosen, count, reduce, empty=centres) / size
    collected = hard_update(v, chosen, count, reduce, empty=torch.zeros_like(learned)) / size
    return softmax_read(q, learned + centres, collected)


def cluster_mixer(q, k, v, learned, iterations, metric, reduce):
    """Tokens (N, D) of one head through learned centres (L, D), shared out softly."""
    centres = learned
    size = len(k) / len(learned) if reduce == "sum" else 1
    for _ in range(iterations):
        weights = probabilities(centres, k, metric)
        centres = soft_update(k, weights, reduce) / size
    return softmax_read(q, learned + centres, soft_update(v, weights, reduce) / size)
