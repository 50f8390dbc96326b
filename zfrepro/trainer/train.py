"""`zfrepro train`: the loop of section 3, resumable at every step.

All randomness is a function of (seed, epoch, step), so a checkpoint holds weights, momentum, schedule and position, and a
resumed run ends bit-identical to an uninterrupted one on the CPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zfrepro.checkpoints import load_checkpoint, save_checkpoint
from zfrepro.data import Packed, open_data
from zfrepro.devices import resolve_precision
from zfrepro.errors import UserError
from zfrepro.figures.training import draw_curves, draw_filters
from zfrepro.files import lock, shown, write_text
from zfrepro.models.network import Network, Noise, initialise
from zfrepro.options.commands import TrainConfig
from zfrepro.options.identity import decisive, differing, write_config
from zfrepro.run import load_config
from zfrepro.trainer.distributed import Team, team
from zfrepro.trainer.feed import Feed, epoch_order
from zfrepro.trainer.optimiser import LearningRate, renormalise
from zfrepro.workers import Interrupted


@dataclass
class Tally:
    """Sums over the steps of an epoch so far; kept in checkpoints."""

    loss: Tensor  # () float64
    wrong: Tensor  # () int64
    images: int = 0
    seconds: float = 0.0
    renormalised: dict[str, Tensor] = field(default_factory=dict)  # layer -> () int64

    @classmethod
    def empty(cls, device: torch.device, layers: list[int]) -> Tally:
        """Zeros."""
        zero = torch.zeros((), dtype=torch.int64, device=device)
        return cls(zero.double(), zero.clone(), renormalised={str(layer): zero.clone() for layer in layers})


PICTURES = ("curves.png", "filters.png")


def train(config: TrainConfig, data: Packed | None = None) -> None:
    """Train `config.run`, or go on with it, or say that it is finished. Writes `train/` (see the README's contract).

    `data`: images to train on in place of the packed data set of `config.data`, such as one fold of it.
    """
    with team(config.device) as members, contextlib.ExitStack() as stack:
        if members.leads:
            stack.enter_context(lock(config.folder))
            _prepare_folder(config)
        members.wait()
        Training(config, members, data).run()


def _prepare_folder(config: TrainConfig) -> None:
    """Make the run's folder, or check that what stands there was made with the same options.

    A start that never came to a checkpoint binds nobody.
    """
    folder = config.folder / "train"
    if not config.resume and folder.exists():
        shutil.rmtree(folder)
    for leftover in (folder / "checkpoints").glob(".*.tmp"):  # of a process that was killed: the lock is ours
        leftover.unlink(missing_ok=True)
    saved = folder / "config.yaml"
    if saved.exists() and (folder / "checkpoints" / "last.pt").exists():
        _refuse_other_config(config, load_config(config.folder))
    else:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_config(saved, config)


def _refuse_other_config(config: TrainConfig, saved: TrainConfig) -> None:
    new, old = decisive(config), decisive(saved)
    if changed := differing(config, saved):
        shown_keys = ", ".join(f"{key}={new.get(key)} (was {old.get(key)})" for key in changed[:6])
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        raise UserError(
            f"run={config.run}: was begun with another config: {shown_keys}{more}; give run=<another name>, the old options, "
            "or resume=false to start it over"
        )


class Training:
    """One training: its network, optimiser and position. `run` is the loop."""

    def __init__(self, config: TrainConfig, members: Team, data: Packed | None = None) -> None:
        self.config, self.team, self.device = config, members, members.device
        if config.batch_size % members.size:
            raise UserError(f"batch_size={config.batch_size}: must be a multiple of the {members.size} processes")
        self.folder = config.folder / "train"
        self.checkpoints = self.folder / "checkpoints"
        self.data = data or open_data(config.data, progress=members.leads)
        self.rows = self.data.train.per_class(config.data.per_class)
        self.steps = len(self.rows) // config.batch_size  # per epoch
        if self.steps == 0:
            raise UserError(f"batch_size={config.batch_size}: larger than the {len(self.rows)} training images")
        self.precision = resolve_precision(config.precision, self.device)
        self.network = build_network(config, self.data.num_classes).placed(self.device)
        self.model: nn.Module = self.network
        if members.size > 1:
            self.model = DistributedDataParallel(self.network)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,  # one pass over the weights
        )
        self.rate = LearningRate(config, config.epochs * self.steps)
        self.mean = torch.from_numpy(self.data.mean.copy()).to(self.device)
        crop = self.network.input_size
        self.feeds = {
            split.name: Feed(split, self.mean, config.input_scale, crop, config.batch_size, members)
            for split in (self.data.train, self.data.val)
        }
        self.epoch = 0  # finished epochs
        self.step = 0  # updates within the current one
        self.seconds = 0.0  # of training so far, over all resumes
        self.tally = self._empty_tally()
        self.metrics: list[dict[str, Any]] = []

    def _empty_tally(self) -> Tally:
        return Tally.empty(self.device, self.network.conv_layers)

    # ------------------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Train to the last epoch."""
        config = self.config
        if (self.checkpoints / "last.pt").exists():
            self._restore()
        if self.epoch >= config.epochs:
            if self.team.leads and all((self.folder / name).exists() for name in PICTURES):
                print(f"run={config.run}: finished, {config.epochs} epochs; nothing to do ({self._result()})")
            elif self.team.leads:  # stopped in the last moment
                self._summarise()
            return
        torch.set_flush_denormal(True)
        if self.team.leads:
            print(
                f"training {config.model.name} on {config.data.name}: {len(self.rows)} images of {self.data.num_classes} "
                f"classes, {config.epochs} epochs of {self.steps} steps, {self.device}, {self.precision}"
                + (f"; going on at epoch {self.epoch + 1}, step {self.step + 1}" if self.epoch or self.step else "")
            )
        done = self.epoch * self.steps + self.step
        bar = tqdm(
            total=config.epochs * self.steps, initial=done, unit="step", disable=self._quiet(), dynamic_ncols=True
        )
        with bar, _stop_signals() as stopped:
            while self.epoch < config.epochs:
                self._train_epoch(bar, stopped)
                self._end_epoch(bar)
                if self.team.any(bool(stopped)):
                    raise Interrupted(stopped[0] if stopped else signal.SIGTERM)
        if self.team.leads:
            self._summarise()

    def _quiet(self) -> bool | None:
        return None if self.team.leads else True  # None: no bar where stderr is no terminal

    def _train_epoch(self, bar: tqdm[Any], stopped: list[int]) -> None:
        """The steps that are left of the current epoch."""
        config, first = self.config, self.epoch * self.steps
        rows = epoch_order(self.rows, config.seed, self.epoch)
        began, before = time.monotonic(), self.tally.seconds
        feed = self.feeds["train"].training(rows, config.augmentation, config.seed, first, self.step)
        for inputs, labels in feed:
            self._step(inputs, labels, first + self.step)
            self.step += 1
            self.tally.seconds = before + time.monotonic() - began
            bar.update()
            if self.step % 20 == 0:
                self._report(bar)
            stop = self.team.any(bool(stopped))
            if stop or self.step % config.checkpoint_every == 0:
                self.save()
            if stop:
                raise Interrupted(stopped[0] if stopped else signal.SIGTERM)

    def _step(self, inputs: Tensor, labels: Tensor, step: int) -> None:
        """One update: forward, loss, backward, SGD, renormalisation."""
        config, share = self.config, self.team.share(self.config.batch_size)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate.at(step)
        noise = Noise(config.seed, step, share.start, config.batch_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.model(inputs, noise).float()
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if config.renorm_radius is not None:
            for layer in self.network.conv_layers:
                scaled = renormalise(self.network.conv(layer).weight, config.renorm_radius)
                self.tally.renormalised[str(layer)] += scaled
        self.tally.loss += loss.detach().double() * len(labels)
        self.tally.wrong += (logits.detach().argmax(1) != labels).sum()
        self.tally.images += len(labels)

    def _report(self, bar: tqdm[Any]) -> None:
        """Refresh the progress bar; stop if the loss is no number."""
        loss, images = self._mean_loss(), self.tally.images
        bar.set_description(f"epoch {self.epoch + 1}/{self.config.epochs}", refresh=False)
        rate = images * self.team.size / max(self.tally.seconds, 1e-9)
        error = 100 * float(self.tally.wrong) / images
        bar.set_postfix_str(f"loss {loss:.3f}, error {error:.1f} %, {rate:.0f} images/s", refresh=False)

    def _mean_loss(self) -> float:
        """Mean training loss of the epoch so far on this process. Raises UserError where it is not finite."""
        loss = float(self.tally.loss) / max(1, self.tally.images)
        if not math.isfinite(loss):
            lr = self.rate.at(self.epoch * self.steps + self.step)
            raise UserError(
                f"the loss is not finite in epoch {self.epoch + 1} by step {self.step} (lr {lr:.2g}): try a lower lr "
                f"(lr={self.config.lr / 4:g}), a longer warm-up (warmup_steps={max(300, 2 * self.config.warmup_steps)}) or "
                "precision=fp32; the last checkpoint is kept"
            )
        return loss

    # ----------------------------------------------------------------------------------------------- ends of epochs

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Top-1 and top-5 errors of centre crops of the validation images, in percent."""
        wrong = torch.zeros(2, dtype=torch.float64, device=self.device)
        count = len(self.data.val)
        for inputs, labels in self.feeds["val"].centre(count):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self.network(inputs).float()
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            wrong += torch.stack([(~top[:, 0]).sum(), (~top.any(1)).sum()])
        top1, top5 = (100 * self.team.sum(wrong) / count).tolist()
        return top1, top5

    def _end_epoch(self, bar: tqdm[Any]) -> None:
        """Validate, log, anneal, keep checkpoints."""
        lr = self.rate.at(self.epoch * self.steps + self.steps - 1)
        self._mean_loss()  # refuses what is not finite before anything is written
        sums = torch.stack([self.tally.loss, self.tally.wrong.double()])
        loss, wrong = (self.team.sum(sums) / (self.steps * self.config.batch_size)).tolist()
        began = time.monotonic()
        top1, top5 = self._validate()
        self.seconds += self.tally.seconds + time.monotonic() - began
        best = self.rate.epoch_ended(top1)
        self.epoch, self.step = self.epoch + 1, 0
        self.metrics.append(
            {
                "epoch": self.epoch,
                "lr": lr,
                "train_loss": loss,
                "train_top1_error": 100 * wrong,
                "val_top1_error": top1,
                "val_top5_error": top5,
                "images_per_second": self.steps * self.config.batch_size / max(self.tally.seconds, 1e-9),
                "filters_renormalized": {layer: int(count) for layer, count in self.tally.renormalised.items()},
                "seconds": self.seconds,
            }
        )
        self.tally = self._empty_tally()
        if self.team.leads:
            bar.write(self._epoch_line())
            self._write_epoch(best)
        self.save()  # last.pt comes last: it says that the epoch is done
        if self.team.leads:
            _tensorboard(self.folder / "tensorboard", self.metrics[-1])
        self.team.wait()

    def _epoch_line(self) -> str:
        m = self.metrics[-1]
        return (
            f"epoch {m['epoch']:3d}/{self.config.epochs}  loss {m['train_loss']:.3f}  train error {m['train_top1_error']:.1f} %  "
            f"val error {m['val_top1_error']:.1f} % (top-5 {m['val_top5_error']:.1f} %)  lr {m['lr']:.2g}  "
            f"{m['images_per_second']:.0f} images/s"
        )

    def _write_epoch(self, best: bool) -> None:
        """The epoch's line of metrics, and its weights where they are the best or a snapshot."""
        weights = self._weights()
        if best:
            save_checkpoint(self.checkpoints / "best.pt", weights)
        if self.epoch in self.config.snapshot_epochs:
            save_checkpoint(self.checkpoints / f"epoch_{self.epoch}.pt", weights)
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.metrics))

    def _summarise(self) -> None:
        """Draw the pictures and say what was written."""
        draw_curves(self.metrics, self.config.model.name).savefig(self.folder / "curves.png", dpi=150)
        first = self.network.conv_layers[0]
        draw_filters(self.network.conv(first).weight.detach().cpu().numpy()).savefig(
            self.folder / "filters.png", dpi=150
        )
        print(f"run={self.config.run}: {self._result()}")
        names = "config.yaml, metrics.jsonl, curves.png, filters.png, checkpoints/{best,last}.pt"
        kept = [epoch for epoch in self.config.snapshot_epochs if epoch <= self.epoch]
        print(f"wrote {shown(self.folder)}/: {names}" + (f", snapshots of epochs {kept}" if kept else ""))

    def _result(self) -> str:
        best = min(self.metrics, key=lambda m: m["val_top1_error"])
        return (
            f"best validation error {best['val_top1_error']:.1f} % top-1, {best['val_top5_error']:.1f} % top-5 "
            f"in epoch {best['epoch']}; {self.seconds:.0f} s of training"
        )

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _weights(self) -> dict[str, Any]:
        """What every other command needs of a checkpoint."""
        return {
            "model": self.network.state_dict(),
            "class_names": list(self.data.class_names),
            "mean": self.mean.cpu(),
            "scale": torch.tensor(self.config.input_scale),
            "epoch": self.epoch,
        }

    def save(self) -> None:
        """Write last.pt: the weights and all that a resume needs."""
        self._mean_loss()
        images = torch.tensor(float(self.tally.images), device=self.device)
        sums = self.team.sum(torch.stack([self.tally.loss, self.tally.wrong.double(), images])).tolist()
        if not self.team.leads:
            return
        position = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "tally": {
                "sums": sums,
                "seconds": self.tally.seconds,
                "renormalised": {layer: int(n) for layer, n in self.tally.renormalised.items()},
            },
            "rate": self.rate.state(),
            "optimiser": self.optimiser.state_dict(),
            "metrics": self.metrics,
            "precision": self.precision,
            "data_key": self.data.key,
        }
        save_checkpoint(self.checkpoints / "last.pt", {**self._weights(), "trainer": position})

    def _restore(self) -> None:
        """Take up last.pt again."""
        path = self.checkpoints / "last.pt"
        state = load_checkpoint(path)
        try:
            saved = state["trainer"]
            self.network.load_state_dict(state["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
            self.rate.restore(saved["rate"])
            self.metrics, tally = list(saved["metrics"]), saved["tally"]
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{shown(path)}: not a checkpoint of this run; move it away, or give resume=false"
            ) from error
        if self.config.precision == "auto":
            self.precision = saved["precision"]
        if saved["data_key"] != self.data.key:
            raise UserError(
                f"run={self.config.run}: the data set has changed since it was begun; give run=<another name>"
            )
        if self.team.leads:  # the sums of all processes go on in the first one
            self.tally.loss += tally["sums"][0]
            self.tally.wrong += int(tally["sums"][1])
            self.tally.images += int(tally["sums"][2])
        self.tally.seconds = tally["seconds"]
        for layer, count in tally["renormalised"].items():
            self.tally.renormalised[layer] += count


def build_network(config: TrainConfig, num_classes: int) -> Network:
    """The freshly initialised network of a config, on the CPU."""
    network = Network(config.model, num_classes)
    initialise(network, config.init, config.seed)
    return network


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them; a second one kills as usual."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if multiprocessing.parent_process() is None:  # a worker may be told twice, and is saving already
            signal.signal(number, old[number])

    old: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
            old[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for caught, handler in old.items():
            signal.signal(caught, handler)


def _tensorboard(folder: Path, line: dict[str, Any]) -> None:
    """Add an epoch's numbers as TensorBoard events, where tensorboard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(folder), purge_step=line["epoch"]) as writer:
        for key, value in line.items():
            if isinstance(value, float):
                writer.add_scalar(key, value, line["epoch"])
