// Package volume keeps the named volumes of this node: directories that outlive the tasks that use them.
//
// It mounts nothing (the container runtime does) and knows no images: what a new volume begins with is written by a function that
// the caller gives.
//
//	Provide ── no directory ──> made
//	        ── empty, or filling was cut short ──> marked, filled, mark taken away ──> the directory
//	        ── not empty ──> the directory
//
// On the disk, below the daemon's data directory:
//
//	volumes/           0700: only root comes this far, so that files of a container's root, or set-user-id ones, are nobody's here
//	volumes/NAME/      0700
//	volumes/NAME/data  what containers see. Owners are the ids inside of containers: mounts map them to those of each container
//	volumes/NAME/data.new  what becomes data once it has its SELinux label
//	volumes/NAME/fill  is there while the volume is filled for the first time
//	volumes/NAME/volume.json  labels and age of a volume that was made by name (Create), and not by a task
//	volumes/.removed-…  a volume that is being removed, which takes as long as it has files
//
// Invariants:
//
//	V1  A volume is removed by nobody but who asks for that: not by the end of a task, nor of the daemon.
//	V2  A volume is filled once at a time, and a container gets it only when that is done.
//	V3  A name is one path element: nothing outside of volumes/ is ever touched.
//	V4  A volume that is in use is not removed; one that is removed is gone at once for everybody, whole.
//
// Concurrency: a Store is safe for concurrent use.
//
// Errors: fault.Invalid for a name that is none, fault.NotFound for a volume that is not there, fault.Precondition for one in use.
//
// A volume is filled when it is empty, as Docker does it (docs.docker.com/engine/storage/volumes, "Populate a volume using a
// container").
package volume
