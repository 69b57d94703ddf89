"""A pretended GPU on a CPU: tensors of two devices that meet raise here as they do there.

Every tensor is one of the CPU. Storages that were made on, or moved to, "cuda" are remembered; a mode above PyTorch's
functions moves them and names their device, and a mode below autograd looks at what each operation is given. What the
lack of CUDA hides otherwise (kernels, streams, rounding) stays hidden.
"""

import contextlib
from types import SimpleNamespace
from unittest import mock

import torch
from pytorch_lightning.accelerators import CUDAAccelerator
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
ACROSS = {aten.copy_, aten._foreach_copy_, aten.set_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # by indices of the CPU, too
SCALARS = {aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_, aten._foreach_add_, aten._foreach_mul_}

_there = {}  # storages on the GPU; a weak reference keeps their key from being given to another


def _of(tensor):
    return tensor.untyped_storage()._cdata


def is_there(tensor):
    """Whether a tensor is on the pretended GPU."""
    return _of(tensor) in _there


def _tensors(*values):
    """The tensors among values and in their lists, dictionaries excepted."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(*value)


def _mark(value, there):
    if len(_there) > 10_000:
        for key in [key for key, storage in _there.items() if storage.expired()]:
            del _there[key]
    for tensor in _tensors(value):
        if there:
            _there.setdefault(_of(tensor), StorageWeakRef(tensor.untyped_storage()))
        else:
            _there.pop(_of(tensor), None)
    return value


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor, there):
        context.back = is_there(tensor)
        return _mark(tensor.clone(), there)

    @staticmethod
    def backward(context, gradient):
        return _mark(gradient.clone(), context.back), None


def _to(tensor, *args, copy=False, **kwargs):
    if args and isinstance(args[0], Tensor):
        args = (GPU if is_there(args[0]) else CPU, args[0].dtype, *args[1:])
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    if tensor.is_meta or (device is not None and device.type == "meta"):
        return tensor.to(*args, copy=copy, **kwargs)
    there = is_there(tensor) if device is None else device.type == "cuda"
    moved = _Moved.apply(tensor, there) if there != is_there(tensor) else tensor
    return _mark(moved.to(dtype=dtype or tensor.dtype, memory_format=layout or torch.preserve_format, copy=copy), there)


def _numpy(tensor, *args, **kwargs):
    if is_there(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    return tensor.numpy(*args, **kwargs)


OWN = {
    Tensor.device.__get__: lambda tensor: GPU if is_there(tensor) else tensor.device,
    Tensor.is_cuda.__get__: is_there,
    Tensor.is_cpu.__get__: lambda tensor: not is_there(tensor),
    Tensor.to: _to,
    Tensor.cpu: lambda tensor, **kwargs: _to(tensor, CPU),
    Tensor.cuda: lambda tensor, *args, **kwargs: _to(tensor, GPU),
    Tensor.type_as: _to,
    Tensor.numpy: _numpy,
    Tensor.__array__: lambda tensor, *args, **kwargs: _numpy(tensor).__array__(*args, **kwargs),
    Tensor.__deepcopy__: lambda tensor, memo: _mark(tensor.__deepcopy__(memo), is_there(tensor)),
    Tensor.pin_memory: lambda tensor, *args: tensor,
}


class _Operations(TorchDispatchMode):
    """What each operation is given is on one device; what it makes is there."""

    makes_there = False  # an operation without a tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = list(_tensors(*args, *kwargs.values()))
        there = [is_there(one) for one in tensors]
        if any(there) and not all(there):
            self.check(func, tensors, there)
        on_gpu = any(there) if tensors else self.makes_there
        if on_gpu and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        out = func(*args, **kwargs)
        return _mark(out, True) if on_gpu and func.overloadpacket not in ACROSS else out

    def check(self, func, tensors, there):
        packet = func.overloadpacket
        scalars = torch.Tag.pointwise in func.tags or packet in SCALARS
        if packet in ACROSS or (packet in INDEXED and there[0]):
            return
        if scalars and all(on or not one.dim() for one, on in zip(tensors, there, strict=True)):
            return
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func} {there}")


class _Functions(TorchFunctionMode):
    """What names a device, or asks for one."""

    def __init__(self, operations):
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in OWN:
            return OWN[func](*args, **kwargs)
        asked, before = kwargs.get("device"), self.operations.makes_there
        if asked is not None:
            there = torch.device(asked).type == "cuda"
            kwargs["device"] = CPU if there else asked
        else:
            there = any(map(is_there, _tensors(*args, *kwargs.values())))
        self.operations.makes_there = there
        try:
            out = func(*args, **kwargs)
        finally:
            self.operations.makes_there = before
        return _mark(out, there) if asked is not None or func is Tensor.new_tensor else out


@contextlib.contextmanager
def second_device():
    """Let this process have a GPU, for as long as the block lasts."""
    operations = _Operations()
    functions = _Functions(operations)
    backward, autocast = torch.autograd._engine_run_backward, torch.autocast

    def with_functions(*args, **kwargs):
        with functions:  # for hooks and for backward passes in Python
            return backward(*args, **kwargs)

    def on_cpu(device_type, *args, **kwargs):
        return autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    stream = SimpleNamespace(record_event=lambda: None, wait_event=lambda event: None)
    replaced = [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "Stream", lambda device: stream),
        (torch.cuda, "stream", lambda stream: contextlib.nullcontext()),
        (torch.cuda, "current_stream", lambda device=None: stream),
        (Tensor, "record_stream", lambda tensor, stream: None),
        (torch.autograd, "_engine_run_backward", with_functions),
        (torch, "autocast", on_cpu),
        (torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None),
        (CUDAAccelerator, "is_available", lambda: True),
        (CUDAAccelerator, "auto_device_count", lambda: 1),
        (CUDAAccelerator, "parse_devices", lambda devices: [0]),
        (CUDAAccelerator, "setup_device", lambda self, device: None),
        (CUDAAccelerator, "setup", lambda self, trainer: None),
        (CUDAAccelerator, "teardown", lambda self: None),
    ]
    with contextlib.ExitStack() as stack:
        for target, name, pretended in replaced:
            stack.enter_context(mock.patch.object(target, name, pretended))
        stack.enter_context(operations)
        stack.enter_context(functions)
        yield
