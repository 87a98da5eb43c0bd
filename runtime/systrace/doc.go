// Package systrace records which system calls the processes of containers make, and which ones their seccomp filters refuse.
//
// It watches and changes nothing: what is refused stays refused, and no process is stopped. It knows no containers and no profiles:
// callers name pid namespaces, and get numbers.
//
//	process in a followed pid namespace
//	    │ system call
//	    ├─ seccomp lets it through ─> tracepoint sys_enter ─> program: used[number] = 1, the thread is inside
//	    ├─ seccomp refuses it ──────────────┐
//	    └─ returns ──────────────────> tracepoint sys_exit ──> program: an error, and not inside? refused[number] = 1
//
// Two eBPF programs are attached to the raw tracepoints that every system call of the machine passes, after seccomp and before
// the return. They compare the namespace of the caller with those that are followed; for everybody else that is the end. A call
// that fails, and is not the last one that its thread was let into, was refused. What the programs find goes into one map, which Read
// reads.
//
// A namespace is followed as such: programs that are run in a container later count, and those in a namespace that was made
// inside it don't. What Skep's launcher does in a container before the program begins is left out, by the name of its process
// (LauncherName).
//
// Invariants:
//
//	S1  Nothing outlives the Recorder: programs and maps are known by their descriptors only, and go with the process.
//	S2  A call is used only if it got past every filter.
//	S3  The number of a namespace that is followed belongs to no other one: it is held open.
//
// # Limits
//
// A call that kills its process, by the filter, is not seen as refused; nor is one that follows at once a call of the same number that was let
// in and did not fail. A call that was under way when a namespace began to be
// followed is found in /proc; if it returns an error in just that moment, it may be taken for a refused one.
//
// # Concurrency
//
// A Recorder is safe for concurrent use.
//
// Sources: bpf(2), bpf-helpers(7), linux/include/trace/events/syscalls.h, linux/kernel/entry/common.c, proc_pid_syscall(5).
package systrace
