"""Interactive segmentation models: an image and clicks in, a mask out."""

from attention_zoo.models.interactive.guidance import box_disks, disks

__all__ = ["box_disks", "disks"]
