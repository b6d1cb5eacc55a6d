"""Losses of mask transformers: matching of queries with segments, and the losses of what is matched.

They are those of MaX-DeepLab (H. Wang et al., CVPR 2021), CMT-DeepLab and kMaX-DeepLab (Q. Yu et al., CVPR and ECCV
2022); the numbers are those of the released kMaX-DeepLab.
"""

from tasks.mask_losses.criterion import LossWeights, MaskCriterion, Sampling
from tasks.mask_losses.matching import match
from tasks.mask_losses.targets import Segments, segments_of_batch, segments_of_mask

__all__ = ["LossWeights", "MaskCriterion", "Sampling", "Segments", "match", "segments_of_batch", "segments_of_mask"]
