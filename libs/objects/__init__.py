"""Bytes under keys, with signed requests for those who bring and fetch them.

A client puts to a *staging* key; the owner checks what arrived and copies it, guarded by its etag,
to a *final* key. Final keys never change and no signature for writing them can exist, so a PUT with
an old URL changes nothing that anyone reads.
"""

from libs.objects.port import (
    STAGING,
    ObjectChanged,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    Objects,
    ObjectsUnavailable,
    SignedRequest,
    connect,
)

__all__ = [
    "STAGING",
    "ObjectChanged",
    "ObjectExists",
    "ObjectInfo",
    "ObjectMissing",
    "Objects",
    "ObjectsUnavailable",
    "SignedRequest",
    "connect",
]
