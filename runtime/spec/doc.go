// Package spec turns an OCI runtime configuration into a Plan: everything the launcher has to do, decided and checked.
//
// It does no I/O and knows nothing of the machine that it runs on; whether a path exists or a kernel has a feature
// shows at launch. It is not a full OCI implementation: what it doesn't offer it refuses, by the name of the field,
// and never ignores.
//
//	*specs.Spec ──Compile────────> *Plan ──(package launch)──> table of system calls
//	            ──CompileBundle──>
//	            ──CompileGranted─>
//	Default() is a spec to start from: least privilege, nothing missing.
//
// Invariants of every Plan that Compile returns:
//
//	I1  The container has its own pid, net, mnt, ipc, uts, cgroup and user namespace; of pid, ipc, user and net it may have
//	    the host's, where the caller, and not the configuration, says so (Granted).
//	I2  No id in the container is the host's root, unless it shares the host's user namespace, and the process's ids are
//	    all mapped.
//	I3  No mount target is "/" or below /proc or /sys, but for the control groups at /sys/fs/cgroup; every target is a
//	    clean relative path.
//	I4  Every mount but devpts is nodev, and with no-new-privileges every mount is nosuid.
//	I5  Effective, permitted, inheritable and ambient capabilities are all within the bounding set.
//	I6  No string contains a NUL byte.
//	I7  Control groups are shown read-only, and only the container's own.
//	I8  At /proc is a procfs or nothing, so that parameters are written to the kernel and to nobody's file; and where
//	    there are parameters, it is there.
//	I9  Further devices are below /dev, in the place of none that every container has, and only they can be used.
//
// They are the policy of the supervisor, whose clients ask for services. An OCI bundle is written by an engine that has
// its own policy: CompileBundle takes it at its word, and demands only I5, I6, a mount namespace, and that /proc is the
// kernel's.
//
// Compile, CompileBundle and Default are safe for concurrent use. A Plan must not be modified.
//
// All problems of a spec are reported in one error, which wraps ErrSpec; each line begins with the field.
//
// Source: OCI runtime-spec 1.3, config.md and config-linux.md.
package spec
