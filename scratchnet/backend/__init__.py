"""Where arrays live and how work runs: devices, buffers, recorded programs, counter-based noise."""

from scratchnet.backend.buffers import Memory, view
from scratchnet.backend.device import Array, Device, get_device
from scratchnet.backend.noise import Clock, Noise
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import Program, prepare, run

__all__ = ["Array", "Clock", "Device", "Memory", "Noise", "Ops", "Program", "get_device", "prepare", "run", "view"]
