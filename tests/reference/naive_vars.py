"""Naive twins of the VARS mixers and GFNet's filter: dense dictionaries and loops, float64, no shared helpers."""

import cmath
import math

import torch


def normalised(kernels):
    return kernels / kernels.pow(2).sum((-1, -2), keepdim=True).sqrt()


def kernel_templates(kernels, height, width, num_prefix):
    """One head's kernels (K, s, s) as columns (prefix + N, K N): each around each position, cut at the border."""
    count, side, _ = kernels.shape
    columns = []
    for kernel in range(count):
        for row in range(height):
            for column in range(width):
                template = torch.zeros(num_prefix + height * width, dtype=kernels.dtype)
                for down in range(side):
                    for right in range(side):
                        y, x = row + down - side // 2, column + right - side // 2
                        if 0 <= y < height and 0 <= x < width:
                            place = num_prefix + y * width + x
                            value = torch.zeros_like(template)
                            value[place] = 1
                            template = template + value * kernels[kernel, down, right]
                columns.append(template)
    return torch.stack(columns, 1)


def prefix_templates(num_prefix, num_spatial):
    templates = torch.zeros(num_prefix + num_spatial, num_prefix, dtype=torch.float64)
    for prefix in range(num_prefix):
        templates[prefix, prefix] = 1 / math.sqrt(2)
        templates[num_prefix:, prefix] = 1 / math.sqrt(2 * num_spatial)
    return templates


def feature_templates(q, directions):
    """One head's random features, columns of unit length."""
    q = q / q.shape[-1] ** 0.25
    atoms = torch.exp(q @ directions - q.pow(2).sum(-1, keepdim=True) / 2)
    return atoms / atoms.norm(dim=0)


def kernel_bound(kernels, height, width):
    """Largest power of one head's kernels together, over the frequencies of a torus they fit on."""
    side = kernels.shape[-1]
    rows, columns = max(height + side // 2, side), max(width + side // 2, side)
    offsets = torch.arange(side, dtype=torch.float64)
    powers = []
    for y in range(rows):
        for x in range(columns):
            phase = 2 * math.pi * (y * offsets[:, None] / rows + x * offsets[None] / columns)
            real, imaginary = (kernels * phase.cos()).sum((1, 2)), (kernels * phase.sin()).sum((1, 2))
            powers.append((real.pow(2) + imaginary.pow(2)).sum())
    return torch.stack(powers).max()


def lista(dictionary, gamma, v, lipschitz, lam, w1, w2, steps):
    """Eq. 1.12 and the reconstruction."""
    drive = dictionary.T @ v
    codes = drive
    for _ in range(steps):
        gradient = gamma.T @ dictionary.T @ (dictionary @ (gamma @ codes)) - drive
        codes = codes - gradient / (w2 * lipschitz)
        codes = torch.sign(codes) * torch.clamp(codes.abs() - w1 * lam / (w2 * lipschitz), min=0)
    return dictionary @ codes


def vars_s(v, kernels, gamma, w1, w2, lam, steps, grid, num_prefix=0):
    height, width = grid
    out = torch.empty_like(v)
    for h in range(v.shape[1]):
        unit = normalised(kernels[h])
        parts = [kernel_templates(unit, height, width, num_prefix), prefix_templates(num_prefix, height * width)]
        mixing = torch.block_diag(torch.kron(gamma, torch.eye(height * width)), torch.eye(num_prefix))
        lipschitz = kernel_bound(unit, height, width) + ((1 + num_prefix) / 2 if num_prefix else 0)
        for b in range(v.shape[0]):
            out[b, h] = lista(torch.cat(parts, 1), mixing, v[b, h], lipschitz, lam, w1, w2, steps)
    return out


def vars_sd(q, v, directions, kernels, gamma_static, gamma, w1, w2, lam, steps, grid, num_prefix, eigenvalue):
    height, width = grid
    out = torch.empty_like(v)
    for h in range(v.shape[1]):
        unit = normalised(kernels[h])
        static = kernel_templates(unit, height, width, num_prefix)
        mixing = torch.block_diag(torch.kron(gamma_static, torch.eye(height * width)), gamma)
        for b in range(v.shape[0]):
            atoms = feature_templates(q[b, h], directions[h])
            lipschitz = kernel_bound(unit, height, width) + eigenvalue(atoms.T @ atoms)
            out[b, h] = lista(torch.cat([static, atoms], 1), mixing, v[b, h], lipschitz, lam, w1, w2, steps)
    return out


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def released_features(x, directions):
    unit = x / x.norm(dim=-1, keepdim=True)
    return torch.exp(unit @ directions - 0.5) / math.sqrt(directions.shape[-1])


def released_performer(q, k, v, directions):
    out = torch.empty_like(v)
    for b in range(v.shape[0]):
        for h in range(v.shape[1]):
            kernel = released_features(q[b, h], directions[h]) @ released_features(k[b, h], directions[h]).T
            out[b, h] = kernel / kernel.sum(1, keepdim=True) @ v[b, h]
    return out


def released_vars(q, v, directions, learned_k, learned_lam, learned_l, lam, steps, table=None):
    """VARS-D, and with a table (1, H, N, M) VARS-SD, head by head."""
    out = torch.empty_like(v)
    for b in range(v.shape[0]):
        for h in range(v.shape[1]):
            atoms = released_features(q[b, h], directions[h])
            atoms = atoms if table is None else torch.cat([atoms, table[0, h]], 1)
            atoms = atoms / atoms.norm(dim=0)
            gram, drive = atoms.T @ atoms, atoms.T @ v[b, h]
            lipschitz = (gram.abs().sum(1).max().detach() + 1) / learned_l
            codes = drive.sign() * gelu(drive.abs() - learned_lam * lam)
            for _ in range(steps):
                codes = codes - (learned_k @ gram @ learned_k @ codes - drive) / lipschitz
                codes = codes.sign() * gelu(codes.abs() - learned_lam * lam / lipschitz)
            out[b, h] = atoms @ codes
    return out


def fourier(height, width):
    """The half of the two-dimensional transform that is kept, as a matrix (height (width // 2 + 1), height width)."""
    half = width // 2 + 1
    matrix = torch.empty(height * half, height * width, dtype=torch.complex128)
    for y in range(height):
        for x in range(half):
            for row in range(height):
                for column in range(width):
                    phase = -2j * math.pi * (y * row / height + x * column / width)
                    matrix[y * half + x, row * width + column] = cmath.exp(phase) / math.sqrt(height * width)
    return matrix


def inverse_fourier(height, width):
    """What leads back, (height width, height (width // 2 + 1)); the real part of its product is the signal."""
    weight = torch.full((width // 2 + 1,), 2.0, dtype=torch.complex128)
    weight[0] = 1
    if width % 2 == 0:
        weight[-1] = 1
    return fourier(height, width).conj().T * weight.repeat(height)


def released_vars_s(v, kernel, kernel2, largest, lam, steps, grid):
    """VARS-S up to its BatchNorm, channel by channel."""
    there, back = fourier(*grid), inverse_fourier(*grid)
    kernel, kernel2 = torch.view_as_complex(kernel), torch.view_as_complex(kernel2)
    out = torch.empty_like(v)
    width = v.shape[-1]
    for b in range(v.shape[0]):
        for channel in range(len(kernel)):
            x = v[b, channel // width, :, channel % width]
            kernels = kernel[channel, :, 0].flatten(1)  # (K, frequencies)

            def to_codes(spectrum, kernels=kernels):
                return torch.stack([(back @ (k * spectrum)).real for k in kernels])

            def decoded(codes, kernels=kernels):
                return sum(k.conj() * (there @ u.to(torch.complex128)) for k, u in zip(kernels, codes, strict=True))

            drive = to_codes(there @ x.to(torch.complex128))
            codes = drive.sign() * torch.clamp(drive.abs() - lam, min=0)
            for _ in range(steps):
                codes = codes - (to_codes(decoded(codes)) - drive) / largest[channel]
                codes = codes.sign() * torch.clamp(codes.abs() - lam / largest[channel], min=0)
            signal = (back @ decoded(codes)).real.to(torch.complex128)
            mixed = (back @ (kernel2[channel, 0, 0].flatten() * (there @ signal))).real
            out[b, channel // width, :, channel % width] = mixed
    return out


def global_filter(x, weight, grid, num_prefix=0):
    """Tokens (B, N, dim) by the spectrum (height, width // 2 + 1, dim, 2): prefix tokens are constant images."""
    there, back = fourier(*grid), inverse_fourier(*grid)
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for channel in range(x.shape[2]):
            response = torch.view_as_complex(weight[:, :, channel].contiguous()).flatten()
            prefix, image = x[b, :num_prefix, channel], x[b, num_prefix:, channel]

            def filtered(image, response=response):
                return (back @ (response * (there @ image.to(torch.complex128)))).real

            out[b, num_prefix:, channel] = filtered(image + (prefix.mean() if num_prefix else 0))
            for token in range(num_prefix):
                out[b, token, channel] = filtered(image + prefix[token]).mean()
    return out


def released_l(kernel):
    """The authors' L of each channel, from spectra (dim, K, 1, h, w // 2 + 1, 2): they drop the imaginary part."""
    largest = []
    for channel in torch.view_as_complex(kernel)[:, :, 0]:
        grams = [torch.outer(k, k.conj()).real for k in channel.flatten(1).T]
        largest.append(torch.stack([torch.linalg.svdvals(gram)[0] for gram in grams]).max())
    return torch.stack(largest)
