"""Who does the work of a layer, a head, an optimizer on which device."""

from typing import Any

from scratchnet.backend import Device

# Of a device with kernels of its own, by type: what stands there does the work; whatever else by its own equations,
# through the operations of the array module. Filled by scratchnet/on_gpu.py. Exactly these types: what a subclass does
# otherwise must not be lost.
TABLE: dict[type, Any] = {}


def on(device: Device, kind: Any) -> Any:
    """The type that does the work of `kind` on the device."""
    return kind if device.cuda is None else TABLE.get(kind, kind)
