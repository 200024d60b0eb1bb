"""What Python does not offer of the kernel: the C extension's calls with types.

A ``path`` argument is never opened: it is what the error names. Sizes and offsets are bytes. A call interrupted by a
signal is repeated once the signal's handler has run, as Python's own os module does (PEP 475). Every function raises
OSError, and NativeMissing when the extension cannot be loaded.
"""

from pvedrbdstor.native.blockdev import (
    device_size,
    logical_sector_size,
    physical_sector_size,
)
from pvedrbdstor.native.buffers import (
    AlignedBuffer,
)
from pvedrbdstor.native.digest import (
    DIGEST_BYTES,
    MAX_BLOCKS,
    MAX_GRANULARITY,
    MIN_GRANULARITY,
    Cancelled,
    Digester,
    Digests,
)
from pvedrbdstor.native.extents import (
    FIEMAP_EXTENT_DATA_INLINE,
    FIEMAP_EXTENT_DELALLOC,
    FIEMAP_EXTENT_LAST,
    FIEMAP_EXTENT_SHARED,
    FIEMAP_EXTENT_UNKNOWN,
    FIEMAP_EXTENT_UNWRITTEN,
    FIEMAP_FLAG_SYNC,
    FIEMAP_MAX_OFFSET,
    Extent,
    data_extents,
    fiemap,
    shared_bytes,
)
from pvedrbdstor.native.files import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FS_IMMUTABLE_FL,
    fallocate,
    fdatasync,
    fsync,
    inode_flags,
    punch_hole,
    set_immutable,
)
from pvedrbdstor.native.priority import (
    IOPRIO_CLASS_BE,
    IOPRIO_CLASS_IDLE,
    IOPRIO_CLASS_NONE,
    IOPRIO_CLASS_RT,
    IoPriority,
    io_priority,
    set_io_priority,
)
from pvedrbdstor.native.sharing import (
    clone_file,
    ocfs2_reflink,
    reflink_fd,
)
from pvedrbdstor.native.statfs import (
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    NFS_SUPER_MAGIC,
    OCFS2_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
    StatFs,
    fstatfs,
)

__all__ = [
    "BTRFS_SUPER_MAGIC",
    "DIGEST_BYTES",
    "EXT4_SUPER_MAGIC",
    "FALLOC_FL_KEEP_SIZE",
    "FALLOC_FL_PUNCH_HOLE",
    "FIEMAP_EXTENT_DATA_INLINE",
    "FIEMAP_EXTENT_DELALLOC",
    "FIEMAP_EXTENT_LAST",
    "FIEMAP_EXTENT_SHARED",
    "FIEMAP_EXTENT_UNKNOWN",
    "FIEMAP_EXTENT_UNWRITTEN",
    "FIEMAP_FLAG_SYNC",
    "FIEMAP_MAX_OFFSET",
    "FS_IMMUTABLE_FL",
    "IOPRIO_CLASS_BE",
    "IOPRIO_CLASS_IDLE",
    "IOPRIO_CLASS_NONE",
    "IOPRIO_CLASS_RT",
    "MAX_BLOCKS",
    "MAX_GRANULARITY",
    "MIN_GRANULARITY",
    "NFS_SUPER_MAGIC",
    "OCFS2_SUPER_MAGIC",
    "TMPFS_MAGIC",
    "XFS_SUPER_MAGIC",
    "AlignedBuffer",
    "Cancelled",
    "Digester",
    "Digests",
    "Extent",
    "IoPriority",
    "StatFs",
    "clone_file",
    "data_extents",
    "device_size",
    "fallocate",
    "fdatasync",
    "fiemap",
    "fstatfs",
    "fsync",
    "inode_flags",
    "io_priority",
    "logical_sector_size",
    "ocfs2_reflink",
    "physical_sector_size",
    "punch_hole",
    "reflink_fd",
    "set_immutable",
    "set_io_priority",
    "shared_bytes",
]
