"""The object store: every byte between stages passes here, and only here.

The one importer of boto3. Addresses are URIs (`s3://bucket/key`; `minio://` reads the same). Every
object is written with its sha256 beside it and checked against it when read, and no object is ever
replaced by another content, but for small ones that are written under a condition: names that hold
data carry a hash of it. Keys come from listings and manifests that others may have written, so each is
checked before it is used: see `split`.
"""

from limbeck.storage.address import split, without_userinfo
from limbeck.storage.failures import NO_ROOM, ObjectError, answer_of, disk_full
from limbeck.storage.objects import Listed, StoredObject, Upload, sha256
from limbeck.storage.patience import DEADLINE, DEADLINE_SECONDS
from limbeck.storage.store import Store
from limbeck.storage.workers import PART_BYTES as CHUNK_BYTES

__all__ = [
    "CHUNK_BYTES",
    "DEADLINE",
    "DEADLINE_SECONDS",
    "NO_ROOM",
    "Listed",
    "ObjectError",
    "Store",
    "StoredObject",
    "Upload",
    "answer_of",
    "disk_full",
    "sha256",
    "split",
    "without_userinfo",
]
