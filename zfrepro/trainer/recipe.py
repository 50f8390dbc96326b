"""A training derived from another: a run's own recipe with what an experiment changes in it, as a run below the first.

An experiment names its trainings for what they are to it (`table3_ablation/zfnet`). Where another recipe stands under that
name already, with other epochs, say, the new one gets a hash behind its name and stands beside it: nothing is refused, thrown
away or taken for what it is not, and going back to the old options costs nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from zfrepro.options.commands import RetrainingConfig, TrainConfig
from zfrepro.options.identity import decisive, differing
from zfrepro.options.shared import Common
from zfrepro.run import load_config
from zfrepro.trainer.folder import Folder
from zfrepro.trainer.start import with_source

FROM_SCRATCH = {"init_from": None, "init_hash": None, "freeze": 0}


def derive(source: TrainConfig, command: Common, name: str, **changes: Any) -> TrainConfig:
    """The training `<run>/<name>` of an experiment: `source` with `changes`, where and how `command` computes."""
    made = dataclasses.replace(
        source,
        run=f"{command.run}/{name}",
        outputs=command.outputs,
        device=command.device,
        precision=command.precision,
        resume=getattr(command, "resume", True),
        snapshot_epochs=[],
        **changes,
    )
    made = with_source(made)
    return made if _free(made) else dataclasses.replace(made, run=f"{made.run}-{recipe_hash(made)}")


def overridden(source: TrainConfig, command: RetrainingConfig) -> dict[str, Any]:
    """What an experiment changes in its source's recipe where it is told to: the share of the data, and what is not null."""
    given = {key: getattr(command, key) for key in ("epochs", "batch_size", "lr", "warmup_steps")}
    data = dataclasses.replace(source.data, per_class=command.data.per_class or source.data.per_class)
    return {"data": data, **{key: value for key, value in given.items() if value is not None}}


def _free(config: TrainConfig) -> bool:
    """Whether nothing stands under the config's name but this very training."""
    folder = Folder(config)
    return not folder.begun or not differing(config, load_config(config.folder))


def recipe_hash(config: TrainConfig) -> str:
    """Eight signs that differ where a training could not be taken over."""
    machine = {"device", "preset", "precision"}
    decides = {key: value for key, value in decisive(config).items() if key not in machine}
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:8]


def finished(config: TrainConfig) -> bool:
    """Whether this very training is there up to its last epoch: of one that failed, or that was begun with another config,
    it is not."""
    folder = Folder(config)
    return folder.begun and folder.ended and _free(config)
