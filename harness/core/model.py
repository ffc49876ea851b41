"""The CNN as an abstract specification: layers, shapes, and what they cost.

A ``ModelSpec`` is a sequence of layers over one image of shape (height, width, channels). Canonical
layout is NHWC, convolution kernels are HWIO, dense kernels (in, out), flatten runs in H, W, C order.
``ModelSpec.trace()`` infers every shape and count, or raises ``ModelError`` naming layer and key.

Costs per image, with one multiply-add counted as two operations:
- Forward: 2 Kh Kw Cin Cout Hout Wout per convolution and 2 Cin Cout per dense layer (Sze et al.,
  "Efficient Processing of Deep Neural Networks", Proc. IEEE 105(12), 2017, section III), plus one
  per bias addition and per output of an activation, one per input of a pool's window, four per
  value of a batch normalisation in training form (subtract, divide, scale, shift).
- Training: forward, plus as much again for the gradient of the parameters, plus as much again for
  the gradient of the input, which the first layer with parameters does not need (Hobbhahn and
  Sevilla, "What's the backward-forward FLOP ratio for neural networks?", Epoch, 2021).
- Activation bytes: four (float32) per value of each layer's output, which is what the backward
  pass keeps at least (Sohoni et al., "Low-Memory Neural Network Training", arXiv 1904.10631, 2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Union

from harness.core.errors import ModelError

ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid")
PADDINGS = ("valid", "same")
BYTES_PER_VALUE = 4

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv2D:
    """Cross-correlation of (H, W, Cin) with ``filters`` kernels of (Kh, Kw, Cin)."""

    kind: ClassVar[str] = "conv2d"
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    activation: str = "linear"
    bias: bool = True


@dataclass(frozen=True)
class MaxPool:
    """Largest value of each window; the gradient goes to the first of tied maxima in row-major order."""

    kind: ClassVar[str] = "max_pool"
    pool: tuple[int, int]
    strides: tuple[int, int] | None = None
    padding: str = "valid"


@dataclass(frozen=True)
class AveragePool:
    """Mean of each window; padded places do not count."""

    kind: ClassVar[str] = "average_pool"
    pool: tuple[int, int]
    strides: tuple[int, int] | None = None
    padding: str = "valid"


@dataclass(frozen=True)
class GlobalAveragePool:
    """(H, W, C) -> (C,): the mean over each channel."""

    kind: ClassVar[str] = "global_average_pool"


@dataclass(frozen=True)
class BatchNorm:
    """Normalise each channel (last axis) over the batch, then scale and shift (Ioffe and Szegedy, 2015).

    The biased batch variance serves both the normalisation and the moving average. After each step
    moving = momentum * moving + (1 - momentum) * batch; evaluation uses the moving values.
    """

    kind: ClassVar[str] = "batch_norm"
    momentum: float = 0.9
    epsilon: float = 1e-3


@dataclass(frozen=True)
class Activation:
    """An elementwise function."""

    kind: ClassVar[str] = "activation"
    function: str


@dataclass(frozen=True)
class Flatten:
    """(H, W, C) -> (H * W * C,), in that order."""

    kind: ClassVar[str] = "flatten"


@dataclass(frozen=True)
class Dropout:
    """In training zero each value with probability ``rate`` and scale the others by 1 / (1 - rate)."""

    kind: ClassVar[str] = "dropout"
    rate: float


@dataclass(frozen=True)
class Dense:
    """Matrix product of (in,) with a kernel (in, units)."""

    kind: ClassVar[str] = "dense"
    units: int
    activation: str = "linear"
    bias: bool = True


# typing.Union, not `|`: the codec and validators read it at run time on every supported Python.
Layer = Union[Conv2D, MaxPool, AveragePool, GlobalAveragePool, BatchNorm, Activation, Flatten, Dropout, Dense]  # noqa: UP007
LAYERS: dict[str, type] = {
    cls.kind: cls
    for cls in (Conv2D, MaxPool, AveragePool, GlobalAveragePool, BatchNorm, Activation, Flatten, Dropout, Dense)
}


@dataclass(frozen=True)
class LayerTrace:
    """One layer with everything inferred. ``forward_flops`` and the like are per image.

    ``parameters`` are trained (kernel, bias, scale, offset); ``statistics`` are moved by training
    (moving_mean, moving_variance). Their full names are ``f"{name}/{key}"``.
    """

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: dict[str, Shape]
    statistics: dict[str, Shape]
    forward_flops: int
    training_flops: int
    activation_bytes: int

    @property
    def parameter_count(self) -> int:
        """Number of trained values in this layer."""
        return sum(math.prod(shape) for shape in self.parameters.values())


@dataclass(frozen=True)
class ModelSpec:
    """A sequential network for images of ``input_shape`` (H, W, C); the last layer gives the logits."""

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    @cached_property
    def traced(self) -> tuple[LayerTrace, ...]:
        """``trace()``, computed once."""
        return self.trace()

    def trace(self) -> tuple[LayerTrace, ...]:
        """Infer shapes, parameters and costs of every layer. Raises ModelError naming layer and key."""
        if len(self.input_shape) != 3 or any(size < 1 for size in self.input_shape):
            raise ModelError("input_shape", f"expected three positive sizes (H, W, C), found {list(self.input_shape)}")
        if not self.layers:
            raise ModelError("layers", "at least one layer is needed")
        shape: Shape = self.input_shape
        traces: list[LayerTrace] = []
        first_parameters_seen = False
        for index, layer in enumerate(self.layers):
            name = f"{index + 1:02d}_{layer.kind}"
            where = f"layer {index + 1} ({layer.kind})"
            output, parameters, statistics = _shapes(layer, shape, where)
            forward, products = _flops(layer, shape, output)
            training = 3 * forward - (products if parameters and not first_parameters_seen else 0)
            first_parameters_seen = first_parameters_seen or bool(parameters)
            traces.append(
                LayerTrace(
                    name=name,
                    layer=layer,
                    input_shape=shape,
                    output_shape=output,
                    parameters=parameters,
                    statistics=statistics,
                    forward_flops=forward,
                    training_flops=training,
                    activation_bytes=BYTES_PER_VALUE * math.prod(output),
                )
            )
            shape = output
        if len(shape) != 1:
            raise ModelError(
                f"layer {len(self.layers)} ({self.layers[-1].kind})",
                f"the model must end in one value per class, but its output has shape {list(shape)}; "
                "end with a dense layer",
            )
        return tuple(traces)

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.traced[-1].output_shape[0]

    @property
    def parameter_shapes(self) -> dict[str, Shape]:
        """Full name -> shape of everything trained, in layer order."""
        return {f"{t.name}/{key}": shape for t in self.traced for key, shape in t.parameters.items()}

    @property
    def statistic_shapes(self) -> dict[str, Shape]:
        """Full name -> shape of the moving statistics, in layer order."""
        return {f"{t.name}/{key}": shape for t in self.traced for key, shape in t.statistics.items()}

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(t.parameter_count for t in self.traced)

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of one forward pass, per image."""
        return sum(t.forward_flops for t in self.traced)

    @property
    def training_flops(self) -> int:
        """Floating-point operations of one forward and backward pass, per image."""
        return sum(t.training_flops for t in self.traced)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layer outputs in float32, per image."""
        return sum(t.activation_bytes for t in self.traced)


def pair_strides(layer: MaxPool | AveragePool) -> tuple[int, int]:
    """A pool's strides: its own, or its window where none are given."""
    return layer.pool if layer.strides is None else layer.strides


def window_output(size: int, window: int, stride: int, padding: str) -> int:
    """Output size along one axis (Dumoulin and Visin, "A guide to convolution arithmetic", 2016).

    ``valid``: floor((size - window) / stride) + 1; ``same``: ceil(size / stride).
    """
    return (size - window) // stride + 1 if padding == "valid" else -(-size // stride)


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros before and after along one axis for ``same``: the odd one goes after (TensorFlow, XLA)."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def without_dropout(model: ModelSpec) -> ModelSpec:
    """The same model with every dropout rate at zero: what parity is checked on."""
    layers = tuple(Dropout(rate=0.0) if isinstance(layer, Dropout) else layer for layer in model.layers)
    return ModelSpec(name=model.name, input_shape=model.input_shape, layers=layers)


def _require_positive(values: tuple[int, ...], where: str, key: str) -> None:
    if any(value < 1 for value in values):
        shown = list(values) if len(values) > 1 else values[0]
        raise ModelError(f"{where}, {key}", f"must be 1 or more, found {shown}")


def _require_one_of(value: str, allowed: tuple[str, ...], where: str, key: str) -> None:
    if value not in allowed:
        raise ModelError(f"{where}, {key}", f"found {value!r}, allowed: {', '.join(allowed)}")


def _require_image(shape: Shape, where: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ModelError(
            where, f"needs an input of shape (H, W, C), but it gets {list(shape)}; it must come before flatten"
        )
    return shape[0], shape[1], shape[2]


def _windowed(
    shape: Shape, window: tuple[int, int], strides: tuple[int, int], padding: str, where: str, key: str
) -> Shape:
    height, width, _ = _require_image(shape, where)
    _require_positive(window, where, key)
    _require_positive(strides, where, "strides")
    _require_one_of(padding, PADDINGS, where, "padding")
    if padding == "valid" and (window[0] > height or window[1] > width):
        raise ModelError(
            f"{where}, {key}",
            f"{window[0]}x{window[1]} is larger than its input of {height}x{width} (padding is valid)",
        )
    return (
        window_output(height, window[0], strides[0], padding),
        window_output(width, window[1], strides[1], padding),
    )


def _shapes(layer: Layer, shape: Shape, where: str) -> tuple[Shape, dict[str, Shape], dict[str, Shape]]:
    """Output shape, trained parameters and moving statistics of one layer."""
    if isinstance(layer, Conv2D):
        _require_positive((layer.filters,), where, "filters")
        _require_one_of(layer.activation, ACTIVATIONS, where, "activation")
        output = _windowed(shape, layer.kernel, layer.strides, layer.padding, where, "kernel")
        kernel: dict[str, Shape] = {"kernel": (*layer.kernel, shape[2], layer.filters)}
        return (*output, layer.filters), kernel | ({"bias": (layer.filters,)} if layer.bias else {}), {}
    if isinstance(layer, (MaxPool, AveragePool)):
        output = _windowed(shape, layer.pool, pair_strides(layer), layer.padding, where, "pool")
        return (*output, shape[2]), {}, {}
    if isinstance(layer, GlobalAveragePool):
        return (_require_image(shape, where)[2],), {}, {}
    if isinstance(layer, BatchNorm):
        if not 0 <= layer.momentum < 1:
            raise ModelError(f"{where}, momentum", f"must be at least 0 and less than 1, found {layer.momentum}")
        if not layer.epsilon > 0:
            raise ModelError(f"{where}, epsilon", f"must be more than 0, found {layer.epsilon}")
        channels = (shape[-1],)
        return shape, {"scale": channels, "offset": channels}, {"moving_mean": channels, "moving_variance": channels}
    if isinstance(layer, Activation):
        _require_one_of(layer.function, ACTIVATIONS, where, "function")
        return shape, {}, {}
    if isinstance(layer, Flatten):
        return (math.prod(_require_image(shape, where)),), {}, {}
    if isinstance(layer, Dropout):
        if not 0 <= layer.rate < 1:
            raise ModelError(f"{where}, rate", f"must be at least 0 and less than 1, found {layer.rate}")
        return shape, {}, {}
    _require_positive((layer.units,), where, "units")
    _require_one_of(layer.activation, ACTIVATIONS, where, "activation")
    if len(shape) != 1:
        raise ModelError(
            where, f"needs a flat input, but it gets {list(shape)}; put flatten or global_average_pool before it"
        )
    dense: dict[str, Shape] = {"kernel": (shape[0], layer.units)}
    return (layer.units,), dense | ({"bias": (layer.units,)} if layer.bias else {}), {}


def _flops(layer: Layer, shape: Shape, output: Shape) -> tuple[int, int]:
    """Forward operations of one layer, and the part of them that its matrix product makes."""
    values = math.prod(output)
    if isinstance(layer, (Conv2D, Dense)):
        fan_in = layer.kernel[0] * layer.kernel[1] * shape[2] if isinstance(layer, Conv2D) else shape[0]
        products = 2 * fan_in * values
        return products + values * layer.bias + values * (layer.activation != "linear"), products
    if isinstance(layer, (MaxPool, AveragePool)):
        return values * layer.pool[0] * layer.pool[1], 0
    if isinstance(layer, GlobalAveragePool):
        return math.prod(shape), 0
    if isinstance(layer, BatchNorm):
        return 4 * values, 0
    if isinstance(layer, Activation):
        return values * (layer.function != "linear"), 0
    return (values, 0) if isinstance(layer, Dropout) else (0, 0)
