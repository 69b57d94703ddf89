"""Which rule which torch function follows, by its name without the mark of its in-place form."""

# one value in, one value out: importance goes through
ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "hardtanh",
        "silu",
        "gelu",
        "hardswish",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "mish",
        "softplus",
        "tanh",
        "clamp",
        "detach",
    ]
)
# `batch_norm` has a rule of its own
NORMALISATIONS = frozenset(["layer_norm", "group_norm", "instance_norm", "local_response_norm"])
# their values weigh others and carry nothing themselves (squeeze-and-excitation)
GATES = frozenset(["sigmoid", "hardsigmoid", "softmax"])
# linear with weights of their own
CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d", "linear"])
# linear with fixed weights of at least 0
AVERAGES = frozenset(["avg_pool2d", "adaptive_avg_pool2d", "mean", "interpolate", "upsample"])
SUMS = frozenset(["add", "__add__", "__radd__"])
# `map - x`, `map * x` and `map / x`; only a product may name the map second
SCALINGS = frozenset(["sub", "__sub__", "div", "__truediv__", "true_divide"])
PRODUCTS = frozenset(["mul", "__mul__", "__rmul__", "multiply"])
PADS = frozenset(["pad", "constant_pad_nd"])
# they move, drop or choose values: torch's own backward moves the importance with them (max pooling: to the winner)
MOVES = frozenset(
    [
        "view",
        "view_as",
        "reshape",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "movedim",
        "swapaxes",
        "contiguous",
        "clone",
        "to",
        "float",
        "chunk",
        "split",
        "unbind",
        "narrow",
        "select",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "__getitem__",
        "index_select",
        "roll",
        "cat",
        "concat",
        "concatenate",
        "stack",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "feature_dropout",
        "max_pool2d",
        "max_pool2d_with_indices",
        "adaptive_max_pool2d",
        "amax",
    ]
)


def plain_name(name: str) -> str:
    """Return the name of the out-of-place form of a torch function."""
    return name if name.startswith("__") else name.removesuffix("_")
