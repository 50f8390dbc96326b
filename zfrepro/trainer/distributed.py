"""One process or many: `torchrun --nproc_per_node=N -m zfrepro train ...`."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zfrepro.devices import resolve_device
from zfrepro.errors import UserError, words_of

RESOLVING = 30.0  # seconds in which a machine's name must become known: on some clusters it does with its process
JOINING = 600.0  # seconds in which all processes must meet
LOST = r"Connection (closed|reset) by peer|gloo/transport|remote process exit"  # gloo's and NCCL's words


@dataclass(frozen=True)
class Team:
    """This process among those that train together; alone: rank 0 of 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any process."""
        return self.sum(torch.tensor(float(flag), device=self.device)).item() > 0 if self.size > 1 else flag

    def lead(self, work: Callable[[], object]) -> None:
        """Let the process that leads do `work`, which writes files, and the others wait for it. If it fails, all end."""
        failed: Exception | None = None
        if self.leads:
            try:
                work()
            except Exception as error:
                failed = error
        if self.any(failed is not None):
            raise failed or UserError("the process that writes the files could not go on; it says why")

    def require_alike(self, own: Mapping[str, object], cure: str) -> None:
        """Refuse processes that differ in any of `own`: they would wait for one another, or train differently in silence."""
        found: list[Any] = [own] * self.size
        if self.size > 1:
            dist.all_gather_object(found, own)
        for rank, theirs in enumerate(found):
            for key in found[0] | theirs:
                if theirs.get(key) != (first := found[0].get(key)):
                    raise UserError(f"{key}: {theirs.get(key)} for RANK={rank}, {first} for RANK=0; {cure}")

    def share(self, count: int) -> slice:
        """This process's part of `count` rows."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


@contextlib.contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started, or work alone."""
    size = _number("WORLD_SIZE", 1)
    if size == 1 or "RANK" not in os.environ:
        yield Team(0, 1, resolve_device(device))
        return
    rank, local = _number("RANK"), _number("LOCAL_RANK")
    place = resolve_device(device)
    if place.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(f"device={device}: process {local} of this machine has no GPU; lower --nproc_per_node")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    _find_master(os.environ.get("MASTER_ADDR", ""))
    _join(backend(place), rank, size)
    try:
        yield Team(rank, size, place)
    except RuntimeError as error:
        if re.search(LOST, str(error)) is None:
            raise
        raise UserError(
            f"RANK={rank}: another of the {size} processes has ended, of an error that it tells or killed, perhaps for lack of "
            "memory; the same command goes on from the last checkpoint"
        ) from error
    finally:
        # The model lies in circles that hold the group. If its threads outlive the interpreter, the process may abort at its
        # end (pytorch/pytorch#179291).
        gc.collect()
        dist.destroy_process_group()


def backend(place: torch.device) -> str:
    """nccl on GPUs, but on Windows, where it is not; gloo elsewhere."""
    return "nccl" if place.type == "cuda" and dist.is_nccl_available() else "gloo"


def _number(name: str, otherwise: int = 0) -> int:
    """A variable that torchrun sets."""
    text = os.environ.get(name, str(otherwise))
    if not text.isdecimal():
        raise UserError(f"{name}={text}: must be a whole number, as torchrun sets it; unset it to train in one process")
    return int(text)


def _find_master(name: str) -> None:
    """Wait until the name is that of a machine. Raises UserError where it does not become one; torch would try for minutes."""
    last = time.monotonic() + RESOLVING
    while name:
        try:
            socket.getaddrinfo(name, None)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() >= last:
                raise UserError(
                    f"MASTER_ADDR={name}: no machine of that name is known here ({error}); give the name or address of the "
                    "machine of rank 0, or start with `torchrun`, which sets it"
                ) from error
            time.sleep(1)


def _join(backend: str, rank: int, size: int) -> None:
    """Meet the other processes. Raises UserError where their place is not known, or does not answer; where they do not come, the
    process ends: gloo waits for ever, and nothing else can stop it."""
    late = _not_met(rank, size, f"not within {JOINING:g} seconds")
    watch = threading.Timer(JOINING, _end, [late])
    watch.daemon = True
    watch.start()
    try:
        dist.init_process_group(backend)
    except (ValueError, RuntimeError) as error:
        raise UserError(_not_met(rank, size, words_of(error))) from error
    finally:
        watch.cancel()


def _not_met(rank: int, size: int, why: str) -> str:
    return (
        f"RANK={rank}, WORLD_SIZE={size}: the {size} processes do not meet ({why}); start them with `torchrun "
        f"--nproc_per_node={size} -m zfrepro train ...`, or unset RANK and WORLD_SIZE to train in one; on several machines, "
        "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network card that they share"
    )


def _end(line: str) -> None:
    print(f"zfrepro: {line}", file=sys.stderr, flush=True)
    os._exit(2)
