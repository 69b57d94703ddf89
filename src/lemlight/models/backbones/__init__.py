"""The parts that turn a published network into a backbone: layers, grey input, output stride, weights."""
