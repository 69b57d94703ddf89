"""A trained network as a file that runs without lemlight's classes: ONNX, or a program of torch.export."""
