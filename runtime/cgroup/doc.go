// Package cgroup puts containers into control groups: limits, membership, OOM kills, killing and removal, on the
// unified hierarchy (v2) and on the legacy ones (v1, also beside an empty v2, called hybrid).
//
// It does not choose limits, and it does not touch any group that it did not create, except that on v2 it enables
// the controllers it needs on the way down to its parent group.
//
//	Open(parent)                     parent created once, in each hierarchy
//	    │
//	    ├─ Create(name, limits) ──> Group ── FD/Add ──> (processes) ── KillAll ──> Remove
//	    └─ Group(name) ───────────> Group   (after a restart of the supervisor)
//
// On v1 a group is one directory per controller; on v2 it is one directory. Unless its limits say otherwise, a container
// with a memory limit does not swap.
//
// No device can be opened or made but those that Limits.Devices allow: on v1 by the devices controller, where it is mounted,
// on v2 by a program of our own at the group (bpf.go).
//
// Invariants:
//
//	I1  Limits are in force before the first process is added.
//	I2  Create leaves nothing behind when it fails.
//	I3  Remove removes empty groups only; it never moves or kills a process.
//
// A Tree is safe for concurrent use. A Group is not, except that OOMKills, KillAll and OOMEvents may be called at any
// time before Remove returns.
//
// Sources: linux/Documentation/admin-guide/cgroup-v1/{memory,devices,pids,cpusets,
// blkio-controller}.rst and cgroup-v2.rst.
package cgroup
