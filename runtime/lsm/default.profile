# What a container may do at most, where the kernel has AppArmor: everything but to reach the node through the kernel's own file
# systems, through mounts and through the processes of others. It is a second wall behind namespaces, read-only mounts,
# capabilities and seccomp, kept by another part of the kernel.
#
# default.bin is this file, compiled; see doc.go. The abi is that of AppArmor 3.0, which kernels from 5.4 to today take: what it does not
# know, such as rules for user namespaces, is not restricted here.
abi <abi/3.0>,

@{PROC}=/proc/

profile skep-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  unix,
  umount,

  # The node's own processes may signal everybody, and those of containers one another: namespaces keep these apart.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=skep-default,
  ptrace (read, trace, readby, tracedby) peer=skep-default,

  deny mount,
  deny remount,
  deny pivot_root,

  # Of /proc, processes may write what is in the directories of processes, which have numbers. What is right below it, and in
  # directories with names, is the node's.
  deny @{PROC}/* wl,
  deny @{PROC}/[a-z]*/** wl,
  deny @{PROC}/{kcore,kmem,mem,sysrq-trigger} rwklx,

  deny /sys/** wl,
  deny /sys/{firmware,kernel/security,kernel/debug,kernel/tracing,devices/virtual/powercap}/** rwklx,
}
