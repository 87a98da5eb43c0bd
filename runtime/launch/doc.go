// Package launch starts the first process of a container.
//
// Everything that the new process does before its execve is compiled into a flat table of system calls by the parent,
// which has the Go runtime, memory and time to check. The child is a plain fork that walks the table; it never
// allocates, locks, or runs anything of Go's. So no helper program and no language runtime ever runs half inside a
// container, where an image could get at it.
//
//	parent (Launcher)                         child (table)
//	    clone3 with three new namespaces ───────> close everything but stdio and the control socket
//	    id maps, oom score                        network, IPC and UTS namespaces
//	    entrances of the control group (v1) ────> enter it; cgroup namespace
//	    root file system, binds, memory ────────> receive them (SCM_RIGHTS)
//	    Meanwhile                                 hostname, mounts, masks, pivot_root
//	    Create returns <───────────────────────── ready
//	    ...                                       wait
//	    Start: resource limits, go ─────────────> working directory, bounding set, ids, no-new-privs,
//	                                              capabilities, seccomp, execve
//	    Start returns <──────── end of file ───── (the socket closes on execve)
//	            error <──────── step and errno ── at any time; the child exits
//
// One more process for a running container (Exec) goes the same way, without anything to mount:
//
//	parent, on a thread in the container's    child (table)
//	pid namespace
//	    clone3 ─────────────────────────────────> close everything but stdio and the control socket
//	    oom score, resource limits                wait
//	    pidfd of the first process,
//	    entrances of the control group ─────────> enter it; setns into all the first one's namespaces at once
//	                                              ids, working directory, bounding set … seccomp, execve
//	    Exec returns <──────── end of file, or step and errno
//
// Invariants:
//
//	I1  The child holds no descriptor of the parent but its stdio and the control socket, from its first steps on, and
//	    the program that it runs none but its stdio.
//	I2  No mount target is reached by a path that an image could redirect: each is opened component by component below
//	    the root with openat2, and mounts go onto the opened descriptor.
//	I3  Devices and masks are the host's own devices, cloned from descriptors whose device numbers were checked.
//	I4  Seccomp is the last call before execve when no-new-privileges is set. Otherwise loading takes CAP_SYS_ADMIN: then it
//	    comes before any capability is dropped, and a profile must allow the calls that drop them.
//	I5  When the parent goes away before Start, the child exits.
//	I6  A failed Create leaves no process and no descriptor behind.
//	I8  Where the kernel has Landlock, the container reaches no file but those below its root and its stdio, through whatever
//	    descriptor or link, unless it may mount. Commands that are run in it later are not confined so.
//	I7  The mounts below /proc, /dev and /sys are made after all others. So a link in an image, or one that another
//	    container swaps into a shared directory, leads no mount over them: what it leads there is hidden below them.
//
// A Launcher is safe for concurrent use. A Process may be waited for by one goroutine and signalled by others.
//
// A Forker, if there is one, does the fork, with less to copy; the child is the parent's all the same.
//
// The fork uses the Go runtime's own hooks for it, as syscall.forkExec does and the runtime promises to keep for such
// use (go.dev/issue/67401). Memory is not shared with the child: that would not be safe (go.dev/issue/71892).
//
// Sources: clone3(2), mount_setattr(2), open_tree(2), openat2(2), user_namespaces(7), capabilities(7).
package launch
