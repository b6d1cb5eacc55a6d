"""Models that leave the project: as a program of torch or ONNX, or as a folder for timm or `attention_zoo.load`."""
