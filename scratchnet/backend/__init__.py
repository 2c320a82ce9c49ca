"""Where arrays live and how work runs: devices, buffers, recorded programs, counter-based noise."""

from scratchnet.backend.buffers import Memory, StepRecord, view
from scratchnet.backend.device import Array, Device, get_device, in_session
from scratchnet.backend.layout import BatchSlice, FlatLayout, slice_of, whole
from scratchnet.backend.noise import Noise, StepCounter
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import Program, owned_by, prepare, run

__all__ = [
    "Array", "BatchSlice", "Device", "FlatLayout", "Memory", "Noise", "Ops", "Program", "StepCounter", "StepRecord",
    "get_device", "in_session", "owned_by", "prepare", "run", "slice_of", "view", "whole",
]  # fmt: skip
