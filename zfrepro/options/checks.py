"""What is impossible is refused here, once; everything downstream trusts its options."""

from __future__ import annotations

import math
import re

from zfrepro.devices import resolve_device
from zfrepro.errors import UserError, require, require_choice, require_layer
from zfrepro.options.commands import (
    AblateConfig,
    CorrespondConfig,
    ImportConfig,
    InvarianceConfig,
    OccludeConfig,
    PicturesConfig,
    ProbeConfig,
    SummaryConfig,
    TargetConfig,
    TrainConfig,
    TransferConfig,
)
from zfrepro.options.shared import DATA_SETS, Common, DataConfig, ModelConfig

DECONVNET = {"unpool": ("sum", "max"), "norm": ("identity", "gradient"), "split": ("val", "train")}


def check(config: object) -> None:
    """Refuse impossible values, whichever dataclass they stand in."""
    if isinstance(config, Common):
        _check_common(config)
    if isinstance(config, TrainConfig):
        _check_training(config)
    if isinstance(config, AblateConfig):
        _check_ablation(config)
    if isinstance(config, ImportConfig):
        require_choice("channels", config.channels, ("rgb", "bgr"))
        require("layers", config.layers, config.layers is None or config.layers >= 1, "1 or more, or null for all")
    if isinstance(config, SummaryConfig):
        require("num_classes", config.num_classes, config.num_classes >= 1, "1 or more")
    if isinstance(config, TargetConfig):
        _check_target(config)
    if isinstance(config, PicturesConfig):
        _check_pictures(config)
    if isinstance(config, CorrespondConfig):
        require(
            "mask", config.mask, 0 < config.mask < 1, "between 0 and 1, both excluded (a share of the image's side)"
        )
        require("draws", config.draws, config.draws >= 1, "1 or more")
        require("num_images", config.num_images, config.num_images >= 2, "2 or more (images are compared in pairs)")
    for key, choices in DECONVNET.items():
        if hasattr(config, key):
            require_choice(key, getattr(config, key), choices)
    for value in vars(config).values():
        if isinstance(value, ModelConfig):
            _check_model(value)
        elif isinstance(value, DataConfig):
            check_data(value)


def _check_common(c: Common) -> None:
    workers = getattr(c, "workers", 0)
    require("workers", workers, workers >= 0, "0 or more")
    plain = re.fullmatch(r"[\w][\w.+=,@/-]*", c.run) is not None and ".." not in c.run
    require("run", c.run, plain, "a name of letters, digits and . _ - + = @ (it becomes a folder below outputs/)")
    require("seed", c.seed, 0 <= c.seed < 2**31, "between 0 and 2147483647")
    require_choice("precision", c.precision, ("fp32", "bf16", "auto"))
    resolve_device(c.device)
    for key in ("num_maps", "num_images", "epochs", "batch_size"):
        if (value := getattr(c, key, None)) is not None:
            require(key, value, value >= 1, "1 or more")


def _check_pictures(c: PicturesConfig) -> None:
    require("claims_images", c.claims_images, c.claims_images >= 0, "0 (not measured) or more")
    if c.labels and len(c.labels) != len(c.images):
        raise UserError(
            f"labels={list(c.labels)}: {len(c.labels)} labels for {len(c.images)} images; give one each, or none"
        )
    if isinstance(c, OccludeConfig):
        require("square", c.square, c.square is None or c.square >= 1, "1 or more, or null for 50 of 224 pixels")
        require("stride", c.stride, c.stride is None or c.stride >= 1, "1 or more, or null for 8 of 224 pixels")
        require("others", c.others, 0 <= c.others <= 3, "between 0 and 3, what the figure has room for")
    if isinstance(c, InvarianceConfig):
        require("steps", c.steps, c.steps >= 3 and c.steps % 2 == 1, "odd, and 3 or more")
        require("scale", c.scale, 1 < c.scale < math.inf, "above 1")
        require("rotation", c.rotation, 0 < c.rotation <= 360, "above 0 and at most 360 degrees")
        shift = c.translation
        require(
            "translation",
            shift,
            shift is None or 0 < shift < math.inf,
            "a positive number, or null for 60 of 224 pixels",
        )


def _check_training(c: TrainConfig) -> None:
    require("lr", c.lr, 0 < c.lr < math.inf, "a positive number")
    require("momentum", c.momentum, 0 <= c.momentum < 1, "at least 0 and below 1")
    require("weight_decay", c.weight_decay, 0 <= c.weight_decay < math.inf, "0 or more")
    require("passes", c.passes, c.passes >= 1, "1 or more")
    require("patience", c.patience, c.patience >= 1, "1 or more")
    require("warmup_steps", c.warmup_steps, c.warmup_steps >= 0, "0 or more")
    require("input_scale", c.input_scale, 0 < c.input_scale < math.inf, "a positive number")
    require("checkpoint_every", c.checkpoint_every, c.checkpoint_every >= 1, "1 or more")
    if c.renorm_radius is not None:
        require("renorm_radius", c.renorm_radius, 0 < c.renorm_radius < math.inf, "a positive number, or null for off")
    require_choice("schedule", c.schedule, ("plateau", "cosine"))
    require_choice("augmentation", c.augmentation, ("ten_crop", "random_crop"))
    require_choice("init", c.init, ("paper", "he"))
    require("snapshot_epochs", c.snapshot_epochs, all(e >= 1 for e in c.snapshot_epochs), "a list of epochs from 1 on")
    if c.model.input_size > c.data.size:
        raise UserError(
            f"model.input_size={c.model.input_size}: the crop is larger than the images; "
            f"must be at most data.size={c.data.size}, or give data.size={c.model.input_size} or more"
        )


def _check_ablation(c: AblateConfig) -> None:
    require("seeds", c.seeds, all(0 <= s < 2**31 for s in c.seeds), "a list of numbers from 0 on")
    require("seeds", c.seeds, len(set(c.seeds)) == len(c.seeds), "a list without repetitions")
    if c.lr is not None:
        require("lr", c.lr, 0 < c.lr < math.inf, "a positive number, or null for the run's own")
    if c.warmup_steps is not None:
        require("warmup_steps", c.warmup_steps, c.warmup_steps >= 0, "0 or more, or null for the run's own")
    if c.dropout is not None:
        require("dropout", c.dropout, 0 <= c.dropout < 1, "at least 0 and below 1, or null for the layer table's")
    if c.data.per_class is not None:
        require(
            "data.per_class", c.data.per_class, c.data.per_class >= 1, "1 or more, or null for as many as the run had"
        )


def _check_target(c: TargetConfig) -> None:
    for key in ("folds", "test_per_class", "scratch_steps", "pool"):
        if (value := getattr(c, key, None)) is not None:
            require(key, value, value >= 1, "1 or more")
    require("parts", c.parts, c.parts >= 2, "2 or more")
    require_choice("dtype", c.dtype, ("float32", "float16"))
    for key in ("strengths", "costs"):
        values = getattr(c, key, [1.0])
        require(key, values, bool(values) and all(0 < v < math.inf for v in values), "a list of positive numbers")
    if isinstance(c, TransferConfig):
        for name in [*c.tables, *c.per_class]:
            require_choice("tables", name, ("table4", "table5", "table6", "fig9"))
        for name, sizes in c.per_class.items():
            require(
                f"per_class.{name}", sizes, bool(sizes) and all(n >= 1 for n in sizes), "a list of numbers from 1 on"
            )
        require("overlap", c.overlap, c.overlap is None or 0 < c.overlap <= 1, "above 0 and at most 1, or null")
    if isinstance(c, ProbeConfig):
        require(
            "layers", c.layers, bool(c.layers or c.softmax_layers), "a list with a layer at least (or softmax_layers)"
        )
        require("per_class", c.per_class, c.per_class is None or c.per_class >= 1, "1 or more, or null")
        require("scalings", c.scalings, bool(c.scalings), "a list of common, each")
        for name in c.scalings:
            require_choice("scalings", name, ("common", "each"))


def _check_model(m: ModelConfig) -> None:
    require("model.input_size", m.input_size, m.input_size >= 1, "1 or more")
    require("model.layers", len(m.layers), len(m.layers) >= 1, "at least one layer")
    numbers = list(range(1, len(m.layers) + 1))
    for key, edited in (("model.remove", m.remove), ("model.scale", list(m.scale or {}))):
        for number in edited:
            require_layer(key, number, numbers)
    left = [layer.kind for number, layer in zip(numbers, m.layers) if number not in m.remove]
    require("model.remove", list(m.remove), "conv" in left, "such that a convolutional layer is left")
    for number, factor in (m.scale or {}).items():
        require(f"model.scale.{number}", factor, 0 < factor < math.inf, "a positive factor")
    seen_fc = False
    for number, layer in zip(numbers, m.layers):
        key = f"model.layers[{number - 1}]"
        require_choice(f"{key}.kind", layer.kind, ("conv", "fc"))
        require_choice(f"{key}.norm", layer.norm, ("none", "after_pool", "before_pool"))
        require(f"{key}.dropout", layer.dropout, 0 <= layer.dropout < 1, "at least 0 and below 1")
        if layer.kind == "fc":
            seen_fc = True
            require(f"{key}.units", layer.units, layer.units >= 1, "1 or more")
            continue
        require(f"{key}.kind", layer.kind, not seen_fc, "fc: a conv layer cannot follow a fully connected one")
        require(f"{key}.maps", layer.maps, layer.maps >= 1, "1 or more")
        require(f"{key}.kernel", layer.kernel, layer.kernel >= 1, "1 or more")
        require(f"{key}.stride", layer.stride, layer.stride >= 1, "1 or more")
        require(f"{key}.padding", layer.padding, layer.padding >= 0, "0 or more")
        require(f"{key}.pool", layer.pool, layer.pool >= 0, "0 (none) or more")
        require(f"{key}.pool_stride", layer.pool_stride, layer.pool_stride >= 1, "1 or more")
        half = layer.pool // 2
        ok = layer.pool == 0 or 0 <= layer.pool_padding <= half
        require(f"{key}.pool_padding", layer.pool_padding, ok, f"between 0 and half the window ({half})")
        require(f"{key}.dropout", layer.dropout, not layer.dropout, "0: dropout is for fully connected layers")


def check_data(d: DataConfig) -> None:
    """Refuse an impossible data set description."""
    require_choice("data.name", d.name, DATA_SETS)
    require_choice("data.on_error", d.on_error, ("raise", "skip"))
    require_choice("data.part", d.part, ("source", "target", "scenes"))
    require("data.size", d.size, 8 <= d.size <= 4096, "between 8 and 4096 pixels")
    require("data.val_fraction", d.val_fraction, 0 < d.val_fraction < 1, "between 0 and 1, both excluded")
    require("data.train_per_class", d.train_per_class, d.train_per_class >= 1, "1 or more")
    require("data.val_per_class", d.val_per_class, d.val_per_class >= 1, "1 or more")
    require("data.workers", d.workers, d.workers >= 0, "0 (one per CPU) or more")
    if d.per_class is not None:
        require("data.per_class", d.per_class, d.per_class >= 1, "1 or more, or null for all")
