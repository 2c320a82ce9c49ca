"""Where arrays live and how work runs: devices, buffers, recorded programs, counter-based noise."""

from scratchnet.backend.buffers import Memory, view
from scratchnet.backend.device import Array, Device, get_device, in_session
from scratchnet.backend.noise import Clock, Noise
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import Program, owned_by, prepare, run

__all__ = [
    "Array", "Clock", "Device", "Memory", "Noise", "Ops", "Program", "get_device", "in_session", "owned_by", "prepare",
    "run", "view",
]  # fmt: skip
