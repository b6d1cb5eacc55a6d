"""Naive twins of the readings: the papers' equations in loops and N x N matrices, float64, no shared helpers."""

import math

import torch


def dot_product(q, k, v):
    weights = torch.exp(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]))
    return weights / weights.sum(-1, keepdim=True) @ v


def performer(q, k, v, directions):
    """Choromanski et al. eq. 5 with the N x N matrix."""
    scale = q.shape[-1] ** 0.25

    def phi(x):
        x = x / scale
        return torch.exp(torch.einsum("bhnd,hdm->bhnm", x, directions) - x.pow(2).sum(-1, keepdim=True) / 2)

    kernel = phi(q) @ phi(k).transpose(-1, -2)
    return kernel / kernel.sum(-1, keepdim=True) @ v


def vars_d(q, v, directions, gamma, w1, w2, lam, steps):
    """Eq. 1.12 and 1.17 on the dictionary itself, head by head."""
    scale = q.shape[-1] ** 0.25
    out = torch.empty_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            x = q[b, h] / scale
            atoms = torch.exp(x @ directions[h] - x.pow(2).sum(-1, keepdim=True) / 2)
            atoms = atoms / atoms.norm(dim=0)
            lipschitz = torch.linalg.matrix_norm(atoms.T @ atoms, 2).detach()
            codes = atoms.T @ v[b, h]
            for _ in range(steps):
                gradient = gamma.T @ atoms.T @ (atoms @ (gamma @ codes)) - atoms.T @ v[b, h]
                codes = codes - gradient / (w2 * lipschitz)
                codes = torch.sign(codes) * torch.clamp(codes.abs() - w1 * lam / (w2 * lipschitz), min=0)
            out[b, h] = atoms @ codes
    return out
