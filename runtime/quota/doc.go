// Package quota bounds what is written below directories, by the project quotas of the file system that they are on.
//
// It makes no file system able to do that: which one is, its administrator decides, by how it was made and mounted (ext4 and xfs with the
// option prjquota). A limit counts what is allocated on that file system for files of one project: data, directories and inodes. Files get
// the project of the directory that they are made in; only the host's user namespace may take them out of it, so that a container with
// user ids of its own can't.
//
//	new directories ──Bound(id, size)──> every write below is counted, and refused with EDQUOT beyond
//	removed         ──Forget(id)───────> the number may be used again
//
// Invariants:
//
//	I1  When Bound returns nil, the directories are in the project, what is made in them will be, and the limit is in force.
//	I2  Project 0, to which all other files belong, never gets a limit.
//
// All functions are safe for concurrent use, for projects that differ.
//
// Callers branch on ErrUnsupported.
//
// Sources: quotactl(2), quotactl_fd (Linux 5.14), ioctl_xfs_fsgetxattr(2), linux/quota.h, linux/dqblk_xfs.h, linux/fs.h.
package quota
