"""`zfrepro train`: the loop of section 3, resumable at every step.

All randomness is a function of (seed, epoch, step), so a checkpoint holds weights, momentum, schedule and position, and a
resumed run ends bit-identical to an uninterrupted one on the CPU. What is learned is the task's (`tasks.py`).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zfrepro.checkpoints import load_checkpoint, save_checkpoint
from zfrepro.data import Packed, open_own, recall, remember
from zfrepro.devices import resolve_precision
from zfrepro.errors import UserError, require
from zfrepro.files import file_hash, lock, shown
from zfrepro.models.network import Network, Noise, initialise
from zfrepro.options.commands import TrainConfig
from zfrepro.options.identity import decisive
from zfrepro.provenance import code_hash
from zfrepro.statistics import has_top5
from zfrepro.trainer.distributed import Team, team
from zfrepro.trainer.feed import Feed, epoch_order
from zfrepro.trainer.folder import Folder
from zfrepro.trainer.localisation import BEGIN, Localisation
from zfrepro.trainer.optimiser import LearningRate, renormalise, restore_momentum
from zfrepro.trainer.progress import Progress, Tally, Totals
from zfrepro.trainer.start import freeze, open_origin, own_inputs, source_inputs, take_over, with_source
from zfrepro.trainer.tasks import Classification, Task
from zfrepro.trainer.views import view_of
from zfrepro.workers import Interrupted, stop_signals

LOOK = 20  # steps between looks at the loss and, in a team, at whether any process was told to stop


def train(config: TrainConfig, data: Packed | None = None) -> None:
    """Train `config.run`, or go on with it, or say that it is finished. Writes `train/` (see the README's contract).

    `data`: images to train on in place of the packed data set of `config.data`, such as one fold of it.
    """
    with team(config.device) as members, contextlib.ExitStack() as stack:
        config, folder = with_source(config), Folder(config)
        members.lead(lambda: stack.enter_context(lock(config.folder)))
        if members.leads:
            stack.callback(folder.forget)
        members.require_alike(decisive(config) | {"zfrepro": code_hash()}, "give all the same options and version")
        saved = load_checkpoint(folder.last) if config.resume and folder.last.exists() else None
        begun = {shown(folder.last): file_hash(folder.last)[:12] if saved and members.size > 1 else "nothing"}
        members.require_alike(begun, "give outputs=<a folder that all machines share>")
        if saved and folder.begun:
            members.lead(lambda: folder.require_same(config))
        known = recall(saved) if saved else None  # the data that the run was begun on
        data = data or open_own(config.data, known, config.run, progress=members.leads)
        boxes = Localisation(data, config.regression, config.boxes) if config.regression else None
        members.require_alike({"data": data.key}, "all machines need the same images in data.root")
        training = Training(config, members, data, boxes or Classification(data), saved)
        members.require_alike({"precision": training.precision}, "give precision=fp32")
        members.lead(lambda: folder.prepare(config))  # what stood there goes only for a training that can begin
        training.run()


class Training:
    """One training: its network, optimiser and position. `run` is the loop.

    saved: the last checkpoint, to go on from; None: it begins.
    """

    def __init__(
        self, config: TrainConfig, members: Team, data: Packed, task: Task, saved: dict[str, Any] | None = None
    ) -> None:
        self.config, self.team, self.device, self.data, self.task = config, members, members.device, data, task
        size, processes = config.batch_size, members.size
        require("batch_size", size, size % processes == 0, f"a multiple of the {processes} processes")
        if len(data.val) < members.size:
            raise UserError(f"{members.size} processes: more than the {len(data.val)} validation images; start fewer")
        self.folder = Folder(config)
        self.rows = np.tile(task.rows(data.train, data.train.per_class(config.data.per_class)), config.passes)
        self.steps = len(self.rows) // config.batch_size  # per epoch
        if self.steps == 0:
            raise UserError(f"batch_size={config.batch_size}: larger than the {len(self.rows)} training images")
        self.precision = resolve_precision(config.precision, self.device)
        source = open_origin(config) if config.init_from and saved is None else None
        self.network = build_network(config, task.outputs)
        self.begun = take_over(self.network, source, config) if source else ""
        self.frozen = freeze(self.network, config.freeze)  # the last layer that is not trained; 0: all are
        self.network.placed(self.device)
        self.model: nn.Module = self.network if members.size == 1 else DistributedDataParallel(self.network)
        self.optimiser = torch.optim.SGD(
            [weights for weights in self.network.parameters() if weights.requires_grad],
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,  # one pass over the weights
        )
        self.rate = LearningRate(config, config.epochs * self.steps)
        mean, scale = own_inputs(config, data)
        before = source.state if source else saved
        if before and config.init_from and config.inputs != "own":
            mean, scale = source_inputs(before, data.size, data.fit == "whole" or bool(config.train_scale))
        self.mean, self.scale = mean.to(self.device), scale.to(self.device)
        self.feeds: dict[str, Feed] = {}
        for split in (data.train, data.val):
            view = view_of(config, data, split, self.mean, self.scale, self.network.input_size)
            self.feeds[split.name] = Feed(split, task, view, config.batch_size, members, self.below)
        self.at = Progress(self._empty_tally())
        if saved is not None:
            self._restore(saved)

    def _empty_tally(self) -> Tally:
        return Tally.empty(self.device, self.network.conv_layers)

    # ------------------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        at, config = self.at, self.config
        if self._ended():
            self._say_finished()
            return
        self._say_begun()
        if self.frozen:  # what they make of images that are always seen alike is computed once
            self.feeds["val"].keep(np.arange(len(self.data.val)))
            if config.augmentation == "centre":
                self.feeds["train"].keep(np.unique(self.rows))
        torch.set_flush_denormal(True)
        quiet = None if self.team.leads else True  # None: no bar where stderr is no terminal
        done, total = at.epoch * self.steps + at.step, config.epochs * self.steps
        with (
            tqdm(total=total, initial=done, unit="step", disable=quiet, dynamic_ncols=True) as bar,
            stop_signals() as told,
        ):
            while not self._ended():
                self._train_epoch(bar, told)
                self._end_epoch(bar)
                if self.team.any(bool(told)):
                    raise Interrupted(told[0] if told else signal.SIGTERM)
        if self.team.leads:
            self._summarise()

    def _ended(self) -> bool:
        return self.at.epoch >= self.config.epochs or self.rate.ended

    def _train_epoch(self, bar: tqdm[Any], told: list[int]) -> None:
        """The steps that are left of the current epoch."""
        at, config, first = self.at, self.config, self.at.epoch * self.steps
        rows = epoch_order(self.rows, config.seed, at.epoch)
        began = time.monotonic() - at.tally.seconds
        for inputs, targets in self.feeds["train"].training(rows, config.seed, first, at.step):
            self.update(inputs, targets, first + at.step)
            at.step += 1
            at.tally.seconds = time.monotonic() - began
            bar.update()
            due = at.step % config.checkpoint_every == 0
            alone = self.team.size == 1  # nobody has to be asked
            if due or at.step % LOOK == 0 or (alone and told):
                totals = self._look(bool(told))
                self._show(bar, totals)
                if due or totals.told:
                    self.save(totals)
                if totals.told:
                    raise Interrupted(told[0] if told else signal.SIGTERM)

    def update(self, inputs: Tensor, targets: Tensor, step: int) -> None:
        """Update number `step`, counted from 0: forward, loss, backward, SGD, renormalisation."""
        config, share = self.config, self.team.share(self.config.batch_size)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate.at(step)
        noise = Noise(config.seed, step, share.start, config.batch_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model(inputs, noise, self.frozen).float()
        loss, wrong = self.task.loss(outputs, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if config.renorm_radius is not None:
            for layer in [number for number in self.network.conv_layers if number > self.frozen]:
                scaled = renormalise(self.network.conv(layer).weight, config.renorm_radius)
                self.at.tally.renormalised[str(layer)] += scaled
        self.at.tally.add(loss, wrong, len(inputs))

    @torch.no_grad()
    def below(self, images: Tensor) -> Tensor:
        """What the layers to be trained get of network inputs: those themselves, or what frozen layers make of them."""
        if not self.frozen:
            return images
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network.features(images, [self.frozen])[self.frozen]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The task's errors on centre crops of the validation images."""
        count = len(self.data.val)
        counts: Tensor | float = 0.0
        for inputs, targets in self.feeds["val"].centre(count):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                outputs = self.network(inputs, after=self.frozen).float()
            counts = counts + self.task.count(outputs, targets)
        assert isinstance(counts, Tensor)
        return self.task.errors(self.team.sum(counts).tolist(), count)

    def _end_epoch(self, bar: tqdm[Any]) -> None:
        at, images = self.at, self.steps * self.config.batch_size
        lr = self.rate.at(at.epoch * self.steps + self.steps - 1)
        totals = self._look()  # refuses what is not finite before anything is written
        began = time.monotonic()
        errors = self.validate()
        at.seconds += at.tally.seconds + time.monotonic() - began
        best = self.rate.epoch_ended(errors[self.task.best])
        at.epoch, at.step = at.epoch + 1, 0
        line = {
            "epoch": at.epoch,
            "lr": lr,
            "train_loss": totals.loss / images,
            self.task.wrong: 100 * (totals.wrong / images),
            **errors,
            "images_per_second": images / max(at.tally.seconds, 1e-9),
            "filters_renormalized": {layer: int(count) for layer, count in at.tally.renormalised.items()},
            "seconds": at.seconds,
            **({"ended": True} if self.rate.ended else {}),
        }
        at.metrics.append(line)
        at.tally = self._empty_tally()
        if self.team.leads:
            bar.write(self._epoch_line())
        self.team.lead(lambda: self.folder.epoch(at.epoch, self._weights(), best))
        self.save(self._look())  # last.pt says that the epoch is done, metrics.jsonl that last.pt is there
        self.team.lead(lambda: self.folder.note(at.metrics))

    def _look(self, told: bool = False) -> Totals:
        """The epoch so far, over all processes. Raises UserError, on all of them, where any one's loss is not finite."""
        totals = Totals.of(self.at.tally, self.team, told)
        if not math.isfinite(totals.loss):
            raise self._diverged("the loss is not finite")
        return totals

    def _diverged(self, what: str) -> UserError:
        last = max(0, self.at.epoch * self.steps + self.at.step - 1)
        epoch, step = divmod(last, self.steps)
        lr, warm = self.rate.at(last), max(300, 2 * self.config.warmup_steps)
        return UserError(
            f"{what} in epoch {epoch + 1} by step {step + 1} (lr {lr:.2g}): try a lower lr "
            f"(lr={self.config.lr / 4:g}), a longer warm-up (warmup_steps={warm}) or precision=fp32; the last checkpoint is kept"
        )

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _weights(self) -> dict[str, Any]:
        """What every other command needs of a checkpoint. Raises UserError where they are no numbers any more."""
        if not torch.stack([weights.isfinite().all() for weights in self.network.parameters()]).all():
            raise self._diverged("weights are not finite")
        return {
            "model": self.network.state_dict(),
            "class_names": list(self.data.class_names),
            **remember(self.data),
            "mean": self.mean.cpu(),
            "scale": self.scale.cpu(),
            "epoch": self.at.epoch,
        }

    def save(self, totals: Totals) -> None:
        """Write last.pt: the weights and all that a resume needs."""
        state = self.at.state(totals) | {
            "rate": self.rate.state(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.precision,
        }
        self.team.lead(lambda: save_checkpoint(self.folder.last, {**self._weights(), "trainer": state}))

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            saved = state["trainer"]
            self.network.load_state_dict(state["model"])
            restore_momentum(self.optimiser, saved["optimiser"]["state"])
            self.rate.restore(saved["rate"])
            self.at.restore(saved, self.team.leads)
            precision = {"fp32": "fp32", "bf16": "bf16"}[saved["precision"]]
            min(float(line[self.task.best]) for line in self.at.metrics or [{self.task.best: 0}])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{shown(self.folder.last)}: not a checkpoint of this run; move it away, or give resume=false"
            ) from error
        if self.config.precision == "auto":
            self.precision = precision
        known = recall(state)
        if known is not None and known.class_ids and known.key != self.data.key:
            raise UserError(
                f"run={self.config.run}: the data set has changed since it was begun; give run=<another name>"
            )

    # -------------------------------------------------------------------------------------------------- what is said

    def _say_begun(self) -> None:
        at, config = self.at, self.config
        if self.team.leads:
            print(
                f"training {config.model.name} on {config.data.name}: {len(self.rows)} images of {self.data.num_classes} "
                f"classes, {config.epochs} epochs of {self.steps} steps, {self.device}, {self.precision}"
                + (f"; going on at epoch {at.epoch + 1}, step {at.step + 1}" if at.epoch or at.step else "")
            )
            if self.begun:
                print(self.begun)
            if self.data.train.multi is not None and not config.regression:
                print("its images have several labels, of which the first alone is learned, and counts as right")
            if config.warmup_steps > (total := config.epochs * self.steps):
                print(
                    f"{total} updates in all: the learning rate only rises (warmup_steps={config.warmup_steps}) and does not get "
                    f"to lr={config.lr:g}; longer: passes={config.passes * (2 * config.warmup_steps // total + 1)}"
                )

    def _show(self, bar: tqdm[Any], totals: Totals) -> None:
        loss, error = totals.loss / totals.images, 100 * totals.wrong / totals.images
        rate = totals.images / max(self.at.tally.seconds, 1e-9)
        bar.set_description(f"epoch {self.at.epoch + 1}/{self.config.epochs}", refresh=False)
        bar.set_postfix_str(f"loss {loss:.3f}, error {error:.1f} %, {rate:.0f} images/s", refresh=False)

    def _epoch_line(self) -> str:
        m = self.at.metrics[-1]
        return (
            f"epoch {m['epoch']:3d}/{self.config.epochs}  loss {m['train_loss']:.3f}  train error {m[self.task.wrong]:.1f} %  "
            f"val error {self._errors(m)}  lr {m['lr']:.2g}  {m['images_per_second']:.0f} images/s"
        )

    def _errors(self, m: dict[str, Any]) -> str:
        top5 = m.get("val_top5_error") if has_top5(self.task.outputs) else None
        return f"{m[self.task.best]:.1f} %" + ("" if top5 is None else f" (top-5 {top5:.1f} %)")

    def _say_finished(self) -> None:
        if self.team.leads and self.folder.whole:
            print(f"run={self.config.run}: finished, {self.at.epoch} epochs; nothing to do ({self._result()})")
        elif self.team.leads:  # stopped in the last moment
            self.folder.note(self.at.metrics)
            self._summarise()

    def _summarise(self) -> None:
        """Draw the pictures and say what was written."""
        first = self.network.conv(self.network.conv_layers[0])
        self.folder.pictures(self.at.metrics, first.weight.detach().cpu().numpy())
        print(f"run={self.config.run}: {self._result()}")
        print(self.folder.written(self.at.epoch))

    def _result(self) -> str:
        best = min(self.at.metrics, key=lambda m: m[self.task.best])
        return (
            f"best validation error {self._errors(best)} in epoch {best['epoch']}; {self.at.seconds:.0f} s of training"
        )


def build_network(config: TrainConfig, outputs: int) -> Network:
    """The freshly initialised network of a config, on the CPU."""
    network = Network(config.model, outputs)
    initialise(network, config.init, config.seed)
    if config.regression:
        nn.init.constant_(network.get_parameter(f"weights.{network.top}.bias"), BEGIN)
    return network
