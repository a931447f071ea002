"""A scan on a Ray cluster: attaches to the user's, or starts one on this machine alone when that is asked for."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from facepipe.catalog.scan import Scanned, ScanOptions
from facepipe.catalog.sources import Source
from facepipe.catalog.workers import LostError, Pool, Worker
from facepipe.embed.describer import Describer
from facepipe.errors import DeviceError, FacepipeError, LibraryError, UsageError
from facepipe.text import printable

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_INSTALL = "--ray needs Ray: pip install 'facepipe[ray]'"
#: Seconds for a cluster's address to answer; Ray alone tries for two minutes, and then ends the process.
_ANSWERS = 5.0
#: Calls to a worker at a time: one describes, others read.
_CALLS = 3


class RayScan:
    """A cluster to scan on: a context manager, and what `ScanOptions.stream` takes.

    address: `auto`, an address, or `local`: starts a cluster on this machine, which nobody else reaches, and stops it afterwards.
    load: makes a describer of these facts on a device; what it needs must be importable on the workers.
    device: as for `load_describer`; auto: CUDA where the cluster has it. workers: how many; None: what the cluster has room for.
    """

    def __init__(
        self,
        address: str,
        load: Callable[[Mapping[str, Any], str], Describer],
        device: str = "auto",
        workers: int | None = None,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._address, self._load, self._device, self._workers, self._tell = address, load, device, workers, tell
        self._pool: Pool | None = None

    def __enter__(self) -> RayScan:
        """Attach. Errors: LibraryError without Ray; DeviceError when the cluster does not answer."""
        local = self._address == "local"
        if local:
            keep_local()
        elif os.environ.get("FACEPIPE_OFFLINE", "") not in {"", "0"}:
            raise DeviceError(f"FACEPIPE_OFFLINE is set: the cluster --ray {printable(self._address)} is not asked")
        else:
            _require_answer(self._address)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise LibraryError(_INSTALL) from error
        chosen: dict[str, Any] = {"include_dashboard": False, "num_cpus": self._workers} if local else {}
        try:
            ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **chosen)
        except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
            reason = printable(str(error).strip().split("\n")[0])
            raise DeviceError(f"--ray {printable(self._address)}: no cluster there ({reason})") from error
        if local:
            ports = ", ".join(map(str, _ports())) or "of its own choice"
            self._tell(
                f"a Ray cluster runs on this machine until the scan ends; ports on 127.0.0.1, with a token: {ports}"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Detach; end the workers, and the cluster if it was started here."""
        import ray

        if self._pool is not None:
            self._pool.close()
        ray.shutdown()

    def __call__(
        self,
        describer: Describer,
        sources: Iterable[tuple[int, Source]],
        recall: Callable[[str], str | None],
        options: ScanOptions,
    ) -> Iterator[list[Scanned]]:
        """As `facepipe.catalog.scan.scan_stream`; workers are started for the first photo."""
        rest = iter(sources)
        for first in rest:
            yield from self._pool_for(describer, options).scan(_before(first, rest), recall)

    def _pool_for(self, describer: Describer, options: ScanOptions) -> Pool:
        facts = dict(describer.facts)
        if self._pool is not None and self._pool.facts == facts:
            return self._pool
        if self._pool is not None:
            self._pool.close()
        import ray

        cluster: Any = ray
        room = cluster.cluster_resources()
        cuda = self._device.startswith("cuda") or (self._device == "auto" and room.get("GPU", 0) >= 1)
        load = partial(self._load, facts, "cuda" if cuda else "cpu")
        sent = ScanOptions(give_back=options.give_back, thumbnails=options.thumbnails)
        worker = cluster.remote(num_cpus=1, num_gpus=int(cuda), max_concurrency=_CALLS, max_restarts=0)(Worker)
        start = partial(_start, worker, load, str(Path.cwd()), sent)
        self._pool = Pool(start, self._workers or max(1, int(room.get("GPU" if cuda else "CPU", 1))), facts)
        return self._pool


def keep_local() -> None:
    """Let a cluster of this process listen on 127.0.0.1 only, and ask for a token. Errors: UsageError when it is too late."""
    # Read by Ray when it is imported: no cluster of other machines.
    if "ray" in sys.modules and os.environ.get(_LOOPBACK) != "0":
        raise UsageError("--ray local: Ray is imported already; start the scan in a process of its own")
    os.environ |= {_LOOPBACK: "0", "RAY_AUTH_MODE": "token"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _before(first: tuple[int, Source], rest: Iterable[tuple[int, Source]]) -> Iterator[tuple[int, Source]]:
    yield first
    yield from rest


@dataclass(frozen=True, slots=True)
class _Actor:
    """A worker as Ray has it. ended: says whether nobody waits for it any more."""

    actor: Any
    ended: Callable[[], bool]

    def call(self, method: str, *arguments: Any) -> Any:
        """See `facepipe.catalog.workers.Remote`."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            reference = getattr(self.actor, method).remote(*arguments)
            while not ray.wait([reference], timeout=1.0)[0]:
                if self.ended():
                    raise LostError("the scan ended")
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, FacepipeError):
                raise error.cause from None
            what = printable(str(error.cause).strip().split("\n")[0])
            raise LibraryError(f"--ray: a worker failed ({type(error.cause).__name__}: {what})") from error
        except RayError as error:
            raise LostError(str(error).strip().split("\n")[-1].strip()) from error

    def stop(self) -> None:
        """See `facepipe.catalog.workers.Remote`."""
        import ray

        if ray.is_initialized():
            ray.kill(self.actor)


def _start(
    worker: Any, load: Callable[[], Describer], folder: str, options: ScanOptions, ended: Callable[[], bool]
) -> _Actor:
    return _Actor(worker.remote(load, folder, options), ended)


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), _ANSWERS).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(f"--ray {printable(address)}: does not answer ({error}); check the address") from error


def _ports() -> list[int]:
    """Return the ports on which this process and its children listen, where the system says so (Linux)."""
    own, sockets = str(os.getpid()), set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if own in (process.name, (process / "stat").read_text().rpartition(")")[2].split()[1]):
                sockets |= {str(link.readlink()) for link in (process / "fd").iterdir()}
    ports = set()
    for table in Path("/proc/net").glob("tcp*"):
        for line in table.read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                ports.add(int(columns[1].rpartition(":")[2], 16))
    return sorted(ports)
