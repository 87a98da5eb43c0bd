// Package unpack writes one image layer, a tar stream, into an empty directory
// that becomes one lower directory of an overlay mount.
//
// It does not fetch, cache or mount: package image hands it a verified blob and
// a staging directory, and renames the directory into place afterwards.
//
// # The life of a layer
//
//	parent (root)                          child (sandbox)
//	-------------                          ---------------
//	clone the mounts of the staging  --->  new mount, pid, net, ipc, uts namespace
//	directory (nodev,nosuid,noexec)        pivot into the staging directory
//	and of the parent layers (ro)          drop capabilities, no_new_privs,
//	                                       rlimits, seccomp
//	                                       decompress, hash, Apply
//	read the report                  <---  report: opaque directories, counts
//	mark opaque directories                exit
//
// The child is the hosting program, started again with a hidden argument: its
// main must call [Child] before it does anything else.
//
// # Invariants
//
//	I1  Nothing outside the target directory changes, whatever the tar says.
//	    Every path operation is a single component below a directory descriptor
//	    that openat2 resolved with RESOLVE_IN_ROOT, and creates with O_EXCL and
//	    O_NOFOLLOW. The sandbox holds even if this code is wrong.
//	I2  The image sets no overlayfs metadata: trusted.*, user.overlay.* and
//	    security.ima/evm/selinux attributes are dropped, and a raw 0:0 character
//	    device is refused. Only whiteouts and opaque markers of this package's
//	    making exist.
//	I3  A directory that the layer needs but does not contain gets the mode,
//	    owner and attributes that it has in the layers below, so that a layer
//	    with tmp/x alone leaves /tmp sticky.
//	I4  Run returns nil only if the whole decompressed stream hashed to the
//	    layer's diffID; after an error the staging directory is worthless.
//	I5  Entries, bytes, names, attributes and depth stay below [Limits].
//
// # Concurrency
//
// [Run] and [Apply] may be called from any goroutine, for different
// directories. Run waits for its child and returns when ctx ends; the child is
// killed with the thread that started it, so a crash leaves none.
//
// # Errors
//
// Callers branch on [ErrLayer] (the image is bad: do not retry), [ErrLimit],
// [ErrDigest] and [ErrSandbox] (this machine cannot unpack safely).
//
// # Sources
//
// OCI image specification 1.1, layer.md (changesets, whiteouts);
// Documentation/filesystems/overlayfs.rst in Linux; openat2(2), pivot_root(2).
package unpack
