"""Rolling deploys: what may be done next, and the write version of a type.

Unknown means no. A *gate* answers whether a step is safe, with machine-readable reasons (`CODES`); `pin`, `flip` and
`unpin` ask their gate and change the write version in one transaction, while no node registers. `restore` goes back
with one actor.
"""

from lazymig._quarantine import Quarantine
from lazymig.rollout._asking import (
    flip,
    forget,
    gate_flip,
    gate_pin,
    gate_retire,
    gate_roll_back,
    gate_unpin,
    pin,
    unpin,
)
from lazymig.rollout._census import Census, Stragglers, census, stragglers
from lazymig.rollout._phases import Step
from lazymig.rollout._preflight_report import Difference, Growth, Preflight
from lazymig.rollout._quarantined import quarantined, retry
from lazymig.rollout._restoring import Restored, restore
from lazymig.rollout._status import PHASES, ReleaseStatus, Status, status
from lazymig.rollout._sweep import sweep
from lazymig.rollout._sweep_notes import SweepStatus, sweep_statuses
from lazymig.rollout._sweep_report import FailedActor, SweepReport
from lazymig.rollout._verdict import CODES, Gate, Reason

__all__ = [
    "CODES",
    "PHASES",
    "Census",
    "Difference",
    "FailedActor",
    "Gate",
    "Growth",
    "Preflight",
    "Quarantine",
    "Reason",
    "ReleaseStatus",
    "Restored",
    "Status",
    "Step",
    "Stragglers",
    "SweepReport",
    "SweepStatus",
    "census",
    "flip",
    "forget",
    "gate_flip",
    "gate_pin",
    "gate_retire",
    "gate_roll_back",
    "gate_unpin",
    "pin",
    "quarantined",
    "restore",
    "retry",
    "status",
    "stragglers",
    "sweep",
    "sweep_statuses",
    "unpin",
]
