// Package seccomp compiles an OCI seccomp profile into the classic BPF program that the kernel runs on every system
// call of a container.
//
// It does not load the program (package launch does, as the last call before execve), and it knows no profile of its
// own: profiles are data that callers bring.
//
// The program, from its first instruction:
//
//	load arch ── x86_64? ──> load nr ── nr >= x32 bit ──> KILL_PROCESS
//	    │                          └─── binary search over ranges of numbers
//	    │                                 ├─ rule without arguments ─────────> its action
//	    │                                 ├─ rules with arguments, in order ─> first match, else the default
//	    │                                 ├─ known number without a rule ────> the default
//	    │                                 └─ number newer than the table ────> ENOSYS
//	    ├── i386? ...
//	    └── any other arch ──> KILL_PROCESS
//
// Invariants:
//
//	I1  Compilation is deterministic: the same profile gives the same bytes, in every process.
//	I2  A call through an ABI that the profile does not list kills the process. So does every x32 call, even when the
//	    profile lists x32: that ABI's table has two numbers for one name, so no policy for it can be read unambiguously.
//	I3  A number newer than the newest that the table knows gives ENOSYS, never EPERM, unless the default is to allow:
//	    C libraries probe new calls and fall back on ENOSYS only.
//	I4  A profile that this package cannot express exactly is refused; nothing is dropped but names of calls that this
//	    machine does not have.
//
// All functions are pure and safe for concurrent use.
//
// Sources: linux/Documentation/userspace-api/seccomp_filter.rst; OCI runtime-spec config-linux.md, section Seccomp.
package seccomp
