"""Every exception of lazymig, named by whose move it is.

    LazymigError
      DefinitionError                 your suite is wrong; raised at import or node start, before data is touched
        InvalidVersionError
        DuplicateMigrationError
        MigrationOrderError
        FrozenDefinitionError
        MissingMigrationError
        WriteVersionError
      InvalidKeyError                 a type, id or name that no store takes (also a ValueError)
      InvalidValueError               a value that JSON can't hold unchanged (also a ValueError)
      ActivationError                 this actor, this software; nothing was written
        NewerStateError
        StateTooOldError
        LateMigrationError
        MigrationFailedError
        QuarantinedError
        CorruptStateError
        NotLoadedError
        NoEntryError
        ReadOnlyActionError
        ActivationClosedError
        ActorLockedError
        RestoreError
        ActivationInProgressError
        LeaseLostError
      CallError                       the call, not the actor
        UnknownActorTypeError
        UnknownActionError
        ReentrantCallError
        CallNotTakenError
        CallLostError
        QueueFullError
        RemoteError
        NodeDrainingError
        NodeStoppedError
      StoreError                      the store's fault; `retryable` says whether trying again can help
        StoreUnavailableError
        StoreClosedError
        StoreLayoutError
        StoreMissingError
        StoreReadOnlyError
        InvalidStoreUrlError
      ConfigurationError              the command line's settings

Constructors take fields and build the message; every error pickles with its fields.
"""

from lazymig.errors._activation import (
    ActivationClosedError,
    ActivationError,
    ActivationInProgressError,
    ActorLockedError,
    CorruptStateError,
    LateMigrationError,
    LeaseLostError,
    MigrationFailedError,
    NewerStateError,
    NoEntryError,
    NotLoadedError,
    QuarantinedError,
    ReadOnlyActionError,
    RestoreError,
    StateTooOldError,
)
from lazymig.errors._base import LazymigError
from lazymig.errors._call import (
    CallError,
    CallLostError,
    CallNotTakenError,
    NodeDrainingError,
    NodeStoppedError,
    QueueFullError,
    ReentrantCallError,
    RemoteError,
    UnknownActionError,
    UnknownActorTypeError,
)
from lazymig.errors._definition import (
    DefinitionError,
    DuplicateMigrationError,
    FrozenDefinitionError,
    InvalidKeyError,
    InvalidValueError,
    InvalidVersionError,
    MigrationOrderError,
    MissingMigrationError,
    WriteVersionError,
)
from lazymig.errors._store import (
    ConfigurationError,
    InvalidStoreUrlError,
    StoreClosedError,
    StoreError,
    StoreLayoutError,
    StoreMissingError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

__all__ = [
    "ActivationClosedError",
    "ActivationError",
    "ActivationInProgressError",
    "ActorLockedError",
    "CallError",
    "CallLostError",
    "CallNotTakenError",
    "ConfigurationError",
    "CorruptStateError",
    "DefinitionError",
    "DuplicateMigrationError",
    "FrozenDefinitionError",
    "InvalidKeyError",
    "InvalidStoreUrlError",
    "InvalidValueError",
    "InvalidVersionError",
    "LateMigrationError",
    "LazymigError",
    "LeaseLostError",
    "MigrationFailedError",
    "MigrationOrderError",
    "MissingMigrationError",
    "NewerStateError",
    "NoEntryError",
    "NodeDrainingError",
    "NodeStoppedError",
    "NotLoadedError",
    "QuarantinedError",
    "QueueFullError",
    "ReadOnlyActionError",
    "ReentrantCallError",
    "RemoteError",
    "RestoreError",
    "StateTooOldError",
    "StoreClosedError",
    "StoreError",
    "StoreLayoutError",
    "StoreMissingError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "UnknownActionError",
    "UnknownActorTypeError",
    "WriteVersionError",
]
