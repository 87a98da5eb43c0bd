// Package overlay mounts the root file system of a container: image layers, shared between containers and owned by
// nobody in particular, under one writable layer of the container's own.
//
// Layers stay as they were unpacked. Each is mounted through the id mapping of the container's user namespace, so
// that root's files in the image are root's files in the container, whatever host ids the container has, and nothing
// is ever copied or chowned. The writable layer holds the container's host ids.
//
//	Probe ──> Driver ── Mount(Layers) ────> detached mount ──> attached by the container in its own mount namespace
//	                 └─ MountImage(lower) ─> the same, of an image beside the root: read-only
//
// The mount is never visible in a mount table of the host.
//
// Two ways to hand the layers to the kernel, chosen once by trying:
//
//	by descriptor   lowerdir+ with detached mounts, kernel 6.15 and later
//	by path         attached for a moment below a private directory, then lowerdir=a:b, kernel 5.19 and later
//
// Invariants:
//
//	I1  Lower layers can't be written through the mount: their clones are read-only.
//	I2  Redirects in a layer are not followed: an image can't show files of another layer's choosing.
//	I3  The mount is nodev, and nosuid unless asked otherwise.
//	I4  Nothing stays attached or open when Mount fails.
//	I5  A writable layer is never synced, neither by the container nor at its end (volatile): otherwise the last unmount would write
//	    out everything that anybody has written to the disk, and hold up whoever else writes, for seconds. So nothing in such a layer is sure
//	    to be whole after a crash of the machine, and the caller throws it away then. When the disk fails to write anything, of anybody's, the
//	    kernel can't tell any more whether the layer is whole: from then on fsync fails in containers that are mounted already.
//
// A Driver is safe for concurrent use.
//
// Sources: linux/Documentation/filesystems/overlayfs.rst, idmappings.rst; mount_setattr(2).
package overlay
