"""An ONNX file as a layer table with weights: the graph is walked node by node, and every node has a place in the table or is
refused by name.

Tensors of the graph are constants (weights, and shapes computed from the input's), or the one tensor that the chain has come
to. Its axes are followed by name, so that exports with the maps last (Keras, TensorFlow) are read as rightly as those with
the maps first: a fully connected layer's weights are ordered as the maps were when they were flattened.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from zfrepro.errors import UserError, require, words_of
from zfrepro.models.imported import Trained, fold_batch_norm
from zfrepro.options.shared import LayerConfig, ModelConfig

WEIGHTS = ("Conv", "Gemm", "MatMul")
Attributes = dict[str, Any]


def read_chain(path: Path, layers: int | None = None) -> tuple[ModelConfig, list[Trained]]:
    """The chain of convolutions in an ONNX file: its layer table, and the weights of its layers; where there is one more, it is
    the softmax layer's. layers: the first `layers` of it; what lies above is not looked at.

    Raises UserError for a file that is not ONNX, and for a graph that is no chain of the table's layers: it names the first
    node that has no place.
    """
    onnx, where, beside = _onnx(), f"weights={path}", list[str]()
    try:
        model = onnx.load(path, load_external_data=False)
        entries = (entry for one in model.graph.initializer for entry in one.external_data)
        beside = sorted({entry.value for entry in entries if entry.key == "location"})  # files that hold weights
        onnx.load_external_data_for_model(model, str(path.parent))
        constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        if not model.graph.node:
            raise ValueError("it holds no network")
    except Exception as error:  # protobuf's, or of the file of weights beside it
        why = words_of(error)
        if beside:
            raise UserError(
                f"{where}: its weights lie beside it, in {', '.join(beside[:3])}, and cannot be read there ({why}); put both "
                "files into one folder, as they were exported"
            ) from error
        raise UserError(f"{where}: not a readable ONNX file ({why}); export it again") from error
    return _Walk(model, constants, where, path.stem, layers).chain()


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise UserError("weights: reading an .onnx file needs the onnx package; `pip install onnx` brings it") from None
    except Exception as error:  # protobuf's, of another version than the one that it was made for
        broken = f"the onnx package is broken here ({words_of(error)})"
        raise UserError(f"weights: {broken}; `pip install -U onnx protobuf` mends it") from error
    return onnx


class _Walk:
    def __init__(self, model: Any, constants: dict[str, np.ndarray], where: str, name: str, wanted: int | None) -> None:
        self.constants = constants
        self.model, self.graph, self.where, self.table_name, self.wanted = model, model.graph, where, name, wanted
        self.here, self.shape = self._input()
        self.made = {self.here, *(name for node in self.graph.node for name in node.output)}
        self.shapes = {self.here: self.shape}  # of every tensor of the chain so far
        self.axes = "NCHW" if self.shape[1] == 3 else "NHWC"  # of the tensor; flattened: "N" and those of its units
        self.units = ""  # after flattening: the order of the axes that the next weights expect
        self.maps = (0, 0, 0)  # C, H, W of the maps that were flattened
        self.input_size = self.shape[2]
        self.rows: list[LayerConfig] = []
        self.weights: list[Trained] = []
        self.active = True  # whether the current layer's ReLU was seen
        self.ended = False  # by a softmax
        self.norm: Attributes = {}
        self.padded = 0  # zeros around the maps, for the next convolution
        self.pieces: set[str] = set()  # tensors inside a contrast normalisation that is written out
        self.written_out: Attributes = {}  # what it comes to
        self.node: Any = None
        self.places: dict[str, Callable[[Attributes], None]] = {
            "Add": self._add, "AveragePool": self._average_pool, "BatchNormalization": self._batch_norm, "Conv": self._conv,
            "Dropout": self._dropout, "Flatten": self._flatten, "Gemm": self._gemm,
            "GlobalAveragePool": self._global_average_pool, "Identity": lambda given: None, "LRN": self._lrn,
            "LogSoftmax": self._softmax, "MatMul": lambda given: self._linear(self._given(1).T, None),
            "MaxPool": self._max_pool, "Pad": self._pad, "Relu": self._relu, "Reshape": self._reshape,
            "Softmax": self._softmax, "Transpose": self._transpose,
        }  # fmt: skip

    def _input(self) -> tuple[str, tuple[int, ...]]:
        """Name and shape (N, C, H, W) or (N, H, W, C) of the one input. Raises UserError where it is no square picture."""
        inputs = [one for one in self.graph.input if one.name not in self.constants]
        if len(inputs) != 1:
            raise UserError(f"{self.where}: the network has {len(inputs)} inputs; a chain has one, the picture")
        sides = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
        if len(sides) == 4 and sides[2] > 0 and sides[1:] in ([3, sides[2], sides[2]], [sides[2], sides[2], 3]):
            return inputs[0].name, (max(1, sides[0]), *sides[1:])
        shown = "x".join(str(side) if side > 0 else "?" for side in sides)
        raise UserError(
            f"{self.where}: its input {inputs[0].name} is {shown or 'no tensor'}; it must be a picture of three colours, as "
            "wide as high and of a fixed size: export it so"
        )

    # -------------------------------------------------------------------------------------------------------- the walk

    def chain(self) -> tuple[ModelConfig, list[Trained]]:
        """Walk the graph to its end, or to the end of the last wanted layer. Where the uppermost layer has no ReLU, it is the
        softmax layer."""
        for node in self.graph.node:
            self.node = node
            if self._is_constant():
                continue
            try:
                if self._complete() and self.node.op_type in WEIGHTS:
                    break
                if not self._is_piece():
                    self._take()
            except UserError:
                if self._complete():
                    break
                raise
        if self.wanted is not None:
            require("layers", self.wanted, 1 <= self.wanted <= self._whole(), f"between 1 and {self._whole()}")
        if self.padded and self.wanted is None:
            self._refuse("puts zeros around the uppermost maps, which the table has in convolutions alone")
        if not self.active and max(self._sides()) > 1:
            self._refuse("has no ReLU behind it and is not fully connected", self.weights[-1].name)
        rows = self.rows[: self._whole()]
        if not any(row.kind == "conv" for row in rows):
            raise UserError(f"{self.where}: there is no convolution with a ReLU in it")
        return ModelConfig(self.table_name, self.input_size, rows, **self.norm), self.weights

    def _complete(self) -> bool:
        """Whether all layers that are wanted are there."""
        return self.wanted is not None and self._whole() == self.wanted

    def _whole(self) -> int:
        """Layers with their ReLU so far."""
        return len(self.rows) - (not self.active)

    def _sides(self) -> list[int]:
        """Height and width of the maps; of units 1."""
        return [side for axis, side in zip(self.axes, self.shape) if axis in "HW"] or [1]

    def _take(self) -> None:
        """The node's place in the table. Raises UserError where it has none."""
        read = [name for name in self.node.input if name and name not in self.constants]
        if missing := [name for name in read if name not in self.made]:
            self._refuse(f"needs {missing[0]!r}, which the file does not hold; export it again, with its weights")
        if read != [self.here]:
            self._refuse("joins or leaves the path of the nodes before it: the network is no chain")
        place = self.places.get(self.node.op_type) if self.node.domain in ("", "ai.onnx") else None
        if place is None:
            self._refuse("has no place in a table of convolutions, ReLU, max pooling and contrast normalisation")
        if self.node.input[0] != self.here and self.node.op_type != "Add":
            self._refuse("takes the pictures where its weights should be")
        if self.ended and self.node.op_type != "Identity":
            self._refuse("comes after the softmax")
        if self.padded and self.node.op_type not in ("Conv", "Transpose", "Identity"):
            self._refuse("comes after zeros around the maps, which the table has in convolutions alone")
        try:
            place(self._attributes())
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            self._refuse(f"is not as ONNX has it ({error})")
        self.here = self.node.output[0]
        self.shapes[self.here] = self.shape

    def _refuse(self, why: str, name: str | None = None) -> NoReturn:
        whole = self._whole()
        cure = f"; layers={whole} takes the layers below it alone" if whole else ""
        if not self.rows and not cure and self.node.op_type not in WEIGHTS:
            cure = "; export the network without what it does to pixels, and give that as mean=, std= and channels="
        raise UserError(f"{self.where}: {name or self._name()} {why}{cure}")

    def _name(self) -> str:
        return f"{self.node.op_type} '{self.node.name or self.node.output[0]}'"

    def _attributes(self) -> Attributes:
        from onnx import helper

        return {one.name: helper.get_attribute_value(one) for one in self.node.attribute}

    def _is_constant(self) -> bool:
        """Compute a node that no picture reaches: constants, and shapes of the chain's tensors."""
        if self.node.op_type == "Shape" and self.node.input[0] in self.shapes:
            given = self._attributes()
            shape = np.array(self.shapes[self.node.input[0]])
            self.constants[self.node.output[0]] = shape[given.get("start", 0) : given.get("end")]
            return True
        if not all(name in self.constants for name in self.node.input if name):
            return False
        from onnx.reference import ReferenceEvaluator

        try:
            versions = {one.domain: one.version for one in self.model.opset_import}
            found = ReferenceEvaluator(self.node, opsets=versions).run(
                None, {name: self.constants[name] for name in self.node.input if name}
            )
        except Exception:  # whatever it is, its outcome is unknown: the node that reads it is refused
            return True
        self.constants |= {name: np.asarray(value) for name, value in zip(self.node.output, found)}
        return True

    def _given(self, index: int) -> np.ndarray:
        """An input of the node besides the chain's own. Raises IndexError or KeyError where it is left out."""
        return self.constants[self.node.input[index]]

    def _optional(self, index: int) -> np.ndarray | None:
        """The same; None where it is left out."""
        return self.constants[self.node.input[index]] if "".join(self.node.input[index : index + 1]) else None

    # -------------------------------------------------------------------------------------------------- nodes: weights

    def _begin(self, row: LayerConfig, weight: np.ndarray, bias: np.ndarray | None) -> None:
        if not self.active:
            self._refuse("has no ReLU behind it, as every layer of the table has", self.weights[-1].name)
        if bias is not None and bias.shape != weight.shape[:1]:
            self._refuse(f"has a bias of {'x'.join(map(str, bias.shape))} numbers for {len(weight)} maps or units")
        self.rows.append(row)
        floats = [np.array(one, np.float32) for one in (weight, np.zeros(len(weight)) if bias is None else bias)]
        self.weights.append(Trained(self._name(), *map(torch.from_numpy, floats)))
        self.active = False

    def _conv(self, given: Attributes) -> None:
        weight = self._given(1)
        if self.axes != "NCHW" or weight.ndim != 4:
            self._refuse("does not convolve maps of two dimensions")
        if given.get("group", 1) != 1:
            self._refuse(f"has {given['group']} groups; the table's convolutions have one")
        kernel, stride, padding = self._window(given, weight.shape[2:])
        padding, self.padded = padding + self.padded, 0
        if weight.shape[1] != self.shape[1]:
            self._refuse(f"takes {weight.shape[1]} maps and gets {self.shape[1]}")
        row = LayerConfig(kind="conv", maps=len(weight), kernel=kernel, stride=stride, padding=padding)
        self._begin(row, weight, self._optional(2))
        self._moved(kernel, stride, padding, len(weight))

    def _window(self, given: Attributes, sides: Any) -> tuple[int, int, int]:
        """Kernel, stride and padding of a convolution or a pooling; refuses what is not the same in every direction."""
        strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
        pads = list(given.get("pads", [0] * 4))
        if len(set(sides)) != 1 or len(set(strides)) != 1:
            self._refuse(f"has a window of {sides[0]}x{sides[1]}, strides {strides}; the table's are square")
        if set(dilations) != {1}:
            self._refuse(f"is dilated by {max(dilations)}; the table's windows are not")
        kernel, stride = int(sides[0]), int(strides[0])
        auto = given.get("auto_pad", b"NOTSET").decode() if min(kernel, stride) > 0 else ""
        if auto.startswith("SAME"):
            side = self.shape[2] + 2 * self.padded
            missing = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            small, large = missing // 2, missing - missing // 2
            pads = [small] * 2 + [large] * 2 if auto == "SAME_UPPER" else [large] * 2 + [small] * 2
        elif auto == "VALID":
            pads = [0] * 4
        if min(kernel, stride, *[side + 1 for side in pads]) < 1:
            self._refuse(f"has a window of {kernel}, a stride of {stride} and zeros of {pads} around, which cannot be")
        if len(set(pads)) != 1:
            self._refuse(f"pads by {pads} (top, left, bottom, right); the table's layers pad all sides alike")
        return kernel, stride, int(pads[0])

    def _moved(self, kernel: int, stride: int, padding: int, maps: int) -> None:
        """The tensor behind a window that slides over it."""
        side = (self.shape[2] + 2 * padding - kernel) // stride + 1
        if side < 1:
            self._refuse(f"does not fit its input of {self.shape[2]}x{self.shape[3]}")
        self.shape = (self.shape[0], maps, side, side)

    def _gemm(self, given: Attributes) -> None:
        weight, bias = self._given(1), self._optional(2)
        if given.get("transA", 0):
            self._refuse("transposes its input")
        matrix = (weight if given.get("transB", 0) else weight.T) * given.get("alpha", 1.0)
        if bias is not None:
            bias = np.broadcast_to(bias * given.get("beta", 1.0), (1, len(matrix)))[0]
        self._linear(matrix, bias)

    def _linear(self, matrix: np.ndarray, bias: np.ndarray | None) -> None:
        """A fully connected layer: matrix (units, inputs), its inputs in the order of the flattened axes."""
        if self.axes != "N" or matrix.ndim != 2 or matrix.shape[1] != self.shape[1]:
            self._refuse("does not multiply a vector of units by a matrix")
        if self.units:
            sides = dict(zip("CHW", self.maps))
            cube = matrix.reshape(len(matrix), *(sides[axis] for axis in self.units))
            matrix = cube.transpose(0, *(1 + self.units.index(axis) for axis in "CHW")).reshape(matrix.shape)
            self.units = ""
        self._begin(LayerConfig(kind="fc", units=len(matrix)), matrix, bias)
        self.shape = (self.shape[0], len(matrix))

    def _add(self, given: Attributes) -> None:
        """A bias that has a node of its own."""
        constants = [self.constants[name] for name in self.node.input if name in self.constants]
        if self.active or not self.rows or self.rows[-1].pool:
            self._refuse("adds a constant where there is no convolution or matrix before it")
        value = constants[0].reshape([1] * (len(self.shape) - constants[0].ndim) + list(constants[0].shape))
        channel = self.axes.index("C") if self.axes != "N" else 1
        if value.ndim != len(self.shape) or value.size != value.shape[channel]:
            self._refuse("adds more than one number a map")
        last = self.weights[-1]
        added = torch.from_numpy(np.array(value, np.float32).reshape(-1))
        self.weights[-1] = dataclasses.replace(last, bias=last.bias + added)

    def _batch_norm(self, given: Attributes) -> None:
        if self.active or not self.rows or self.rows[-1].pool or given.get("training_mode", 0):
            self._refuse("does not stand right behind a convolution or a matrix, so it cannot be folded into it")
        if self.axes not in ("NCHW", "N"):
            self._refuse("normalises over another axis than the maps")
        parts = [self._given(index) for index in range(1, 5)]
        names = ("weight", "bias", "running_mean", "running_var")
        norm = {name: torch.from_numpy(np.array(part, np.float32)) for name, part in zip(names, parts)}
        if any(part.shape != self.weights[-1].bias.shape for part in norm.values()):
            self._refuse(f"normalises by {parts[0].size} numbers what has {len(self.weights[-1].bias)} maps or units")
        self.weights[-1] = fold_batch_norm(self.weights[-1], norm, given.get("epsilon", 1e-5))

    # ---------------------------------------------------------------------------------------------- nodes: everything else

    def _relu(self, given: Attributes) -> None:
        if not self.rows:
            self._refuse("comes before the first convolution")
        self.active = True

    def _max_pool(self, given: Attributes) -> None:
        row = self._conv_row()
        if row.pool:
            self._refuse("is the second pooling of its layer")
        kernel, stride, padding = self._window(given, given["kernel_shape"])
        if padding > kernel // 2:
            self._refuse(f"pads by {padding}, more than half its window")
        rest = (self.shape[2] + 2 * padding - kernel) % stride
        if given.get("ceil_mode", 0) and rest:
            self._refuse(
                f"rounds the size of its maps up (ceil_mode, maps of {self.shape[2]} px); the table's round down"
            )
        row.pool, row.pool_stride, row.pool_padding = kernel, stride, padding
        self._moved(kernel, stride, padding, self.shape[1])

    def _lrn(self, given: Attributes) -> None:
        row, size = self._conv_row(), int(given["size"])
        if row.norm != "none" or not self.active:
            self._refuse("does not follow a ReLU or its pooling, once a layer")
        if size % 2 == 0:
            self._refuse(f"sums over {size} maps, an even number, which has no middle")
        # ONNX divides alpha by the number of maps, the paper does not.
        norm = {"norm_size": size, "norm_k": float(given.get("bias", 1.0))}
        norm |= {"norm_alpha": given.get("alpha", 1e-4) / size, "norm_beta": float(given.get("beta", 0.75))}
        if self.norm and self.norm != norm:
            self._refuse("differs from the contrast normalisation below it; the table has one for all layers")
        self.norm, row.norm = norm, "after_pool" if row.pool else "before_pool"

    def _is_piece(self) -> bool:
        """Whether the node belongs to a contrast normalisation that is written out, as PyTorch exports it: here /
        (k + alpha * mean of here^2 over neighbouring maps)^beta. Its last node stands for the whole."""
        node = self.node
        if node.op_type == "Mul" and list(node.input) == [self.here] * 2 and (found := self._norm_in_pieces()):
            self.written_out, self.pieces = found, set(node.output)
            return True
        if not self.pieces or not self.pieces & set(node.input):
            return False
        if node.op_type == "Div" and node.input[0] == self.here:
            self._lrn(self.written_out)
            self.here, self.pieces = node.output[0], set()
            self.shapes[self.here] = self.shape
            return True
        if node.op_type == "Pad":
            ends = [int(one) for one in self.constants.get(node.input[1], np.zeros(0)).ravel() if one]
            if ends != [int(self.written_out["size"]) // 2] * 2:
                self._refuse("sums over neighbouring maps that do not lie around their middle")
        self.pieces |= set(node.output)
        return True

    def _norm_in_pieces(self) -> Attributes | None:
        """What the square of `here` is the beginning of, in LRN's terms; None: something else."""
        makers = {name: node for node in self.graph.node for name in node.output}
        ends = [node for node in self.graph.node if node.op_type == "Div" and node.input[0] == self.here]
        name, found = ends[0].input[1] if len(ends) == 1 else "", {}
        for kind, key in (("Pow", "beta"), ("Add", "bias"), ("Mul", "alpha")):
            node = makers.get(name)
            numbers = [] if node is None else [self._number(makers, one) for one in node.input]
            known = [one for one in numbers if one is not None]
            if node is None or node.op_type != kind or len(known) != 1 or len(numbers) != 2:
                return None
            found[key], name = known[0], node.input[numbers.index(None)]
        while (node := makers.get(name)) is not None and node.op_type in ("Squeeze", "Reshape", "Unsqueeze", "If"):
            inner = [one for branch in node.attribute for one in branch.g.node if one.op_type == "Squeeze"]
            name = (inner[0] if node.op_type == "If" and inner else node).input[0]
        if node is None or node.op_type != "AveragePool":
            return None
        windows = {one.name: list(one.ints) for one in node.attribute}
        size, *others = windows["kernel_shape"]
        flat = set(others) <= {1} and set(windows.get("strides", [1])) == {1} and not any(windows.get("pads", [0]))
        return found | {"size": size} if flat else None

    def _number(self, makers: Mapping[str, Any], name: str) -> float | None:
        """A constant number, also of a node that comes later; None: no constant."""
        from onnx import numpy_helper

        value, node = self.constants.get(name), makers.get(name)
        if value is None and node is not None and node.op_type == "Constant" and node.attribute[0].HasField("t"):
            value = numpy_helper.to_array(node.attribute[0].t)
        return float(value.item()) if value is not None and value.size == 1 else None

    def _pad(self, given: Attributes) -> None:
        """Zeros around the maps: they become the next convolution's own, as in Keras' ZeroPadding2D before it."""
        amounts = given["pads"] if "pads" in given else self._given(1).ravel().tolist()
        value, axes = self._optional(2), self._optional(3)
        ends = list(zip(amounts, amounts[len(self.shape) :]))
        if given.get("mode", b"constant") != b"constant" or axes is not None or given.get("value", 0) or (
            value is not None and value.any()
        ):  # fmt: skip
            self._refuse("pads by something else than zeros around the maps")
        sides = {end for axis, pair in zip(self.axes, ends) for end in pair if axis in "HW"}
        if (
            self.axes == "N"
            or len(sides) != 1
            or min(sides) < 0
            or any(any(pair) for axis, pair in zip(self.axes, ends) if axis not in "HW")
        ):
            self._refuse(f"pads by {amounts}; the table's layers pad all sides of the maps alike, and cut none off")
        self.padded = int(sides.pop())

    def _conv_row(self) -> LayerConfig:
        """The layer that the node belongs to."""
        if self.axes != "NCHW" or not self.rows:
            self._refuse("does not act on the maps of a convolution")
        return self.rows[-1]

    def _average_pool(self, given: Attributes) -> None:
        """The identity, as torchvision's adaptive pooling is at its own size."""
        if set(given["kernel_shape"]) | set(given.get("strides", [1])) != {1} or any(given.get("pads", [0])):
            self._refuse("averages; the table's pooling takes the maximum")

    def _global_average_pool(self, given: Attributes) -> None:
        if max(self._sides()) > 1:
            self._refuse("averages; the table's pooling takes the maximum")

    def _dropout(self, given: Attributes) -> None:
        training = self._optional(2)
        if training is not None and training.any():
            self._refuse("drops units at random outside training; export the network in evaluation")
        ratio = self._optional(1)
        share = given.get("ratio", 0.5) if ratio is None else float(ratio)
        if self.rows and self.rows[-1].kind == "fc" and self.active:
            self.rows[-1].dropout = share

    def _transpose(self, given: Attributes) -> None:
        order = given.get("perm", tuple(reversed(range(len(self.shape)))))
        if order[0] != 0 or (self.axes == "N" and tuple(order) != (0, 1)):
            self._refuse("moves the axis of the pictures")
        if self.axes != "N":
            self.axes = "".join(self.axes[axis] for axis in order)
        self.shape = tuple(self.shape[axis] for axis in order)

    def _flatten(self, given: Attributes) -> None:
        if given.get("axis", 1) not in (1, 1 - len(self.shape)):
            self._refuse("keeps more axes than that of the pictures")
        self._flat()

    def _reshape(self, given: Attributes) -> None:
        wanted = self._given(1)
        keep = not given.get("allowzero", 0)
        target = [self.shape[i] if side == 0 and keep else int(side) for i, side in enumerate(wanted.ravel())]
        if -1 in target:
            target[target.index(-1)] = math.prod(self.shape) // max(1, -math.prod(target))
        if tuple(target) == self.shape:
            return
        if target != [self.shape[0], math.prod(self.shape[1:])]:
            self._refuse(
                f"gives maps of {self.shape} the shape {tuple(target)}; the table's layers read all maps as one vector"
            )
        self._flat()

    def _flat(self) -> None:
        """Maps become units, in the order of their axes."""
        if self.axes == "N":
            return
        sides = dict(zip(self.axes, self.shape))
        self.units, self.maps = self.axes[1:], (sides["C"], sides["H"], sides["W"])
        self.axes, self.shape = "N", (self.shape[0], math.prod(self.shape[1:]))

    def _softmax(self, given: Attributes) -> None:
        axis = given.get("axis", -1) % len(self.shape)
        if self.active or axis != 1 or self.axes == "NHWC" or max(self._sides()) > 1:
            self._refuse("is no softmax over the outputs of the last layer")
        self.ended = True
