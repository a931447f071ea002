"""The networks of the records: which definition reads a file, and which engine runs it on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facepipe.errors import ModelError
from facepipe.models.devices import resolve_device
from facepipe.models.engines import Engine, OpenCvEngine, TorchEngine, starts_without_torch
from facepipe.models.registry import ModelRecord

if TYPE_CHECKING:
    import torch

    from facepipe.models.cascade import CascadeNetworks


def load_engine(record: ModelRecord, data: bytes, device: str, *, quick: bool = False) -> Engine:
    """Return an embedder's network, ready to run. data: its file, checked. device: auto, cpu, cuda or cuda:N.

    quick: without torch where that is possible, which is `mini`'s family on the CPU.
    Errors: ModelError when the file does not fit the definition, DeviceError when the device is not there.
    """
    if record.network == "onnx":
        from facepipe.models.onnx_engine import OnnxEngine

        return OnnxEngine(data, record.name, device)
    if quick and record.network == "mini" and starts_without_torch(device):
        return OpenCvEngine(_mini_graph(record, data))
    where = resolve_device(device)
    return TorchEngine(torch_network(record, data), where)


def _mini_graph(record: ModelRecord, data: bytes) -> bytes:
    """Return a network of `mini`'s family as ONNX."""
    import safetensors.numpy
    from safetensors import SafetensorError

    from facepipe.models.graphs import mini_graph

    try:
        return mini_graph(safetensors.numpy.load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"model {record.name!r}: its weights do not fit the network: {error}") from error


def torch_network(record: ModelRecord, data: bytes) -> torch.nn.Module:
    """Return an embedder's network as a torch module; ModelError when the file does not fit the definition."""
    if record.network == "mini":
        import safetensors.torch
        from safetensors import SafetensorError

        from facepipe.models import mini

        try:
            return mini.build(safetensors.torch.load(data))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise ModelError(f"model {record.name!r}: its weights do not fit the network: {error}") from error
    if record.network == "inception-resnet-v1":
        from facepipe.models import inception

        return inception.build(data)
    raise ModelError(f"model {record.name!r}: facepipe has no network {record.network!r}")


def load_cascade(device: torch.device) -> CascadeNetworks:
    """Return the networks in the form that is fastest on a device; all forms give the same answers.

    Errors: ModelError when the weights are missing or not the recorded ones.
    """
    from facepipe.models.mtcnn import TorchCascade
    from facepipe.models.onednn import OneDnnCascade, available

    return OneDnnCascade() if device.type == "cpu" and available() else TorchCascade(device)
