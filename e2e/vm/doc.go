// Package vm runs test suites in a virtual machine with a kernel of its own, because what a container may do depends on
// the kernel: the tests on a developer's machine see one, here they see Debian's, with control groups v2 alone and
// AppArmor; and, in a second machine, SELinux, of which a kernel has one or the other. Its policy, selinux/policy.conf, is a small one of ours, in
// the words of the reference policy.
//
// It is not a lab of several machines: that is package lab, whose scripts run in here as well.
//
//	host (Build, Boot)                            guest (package guest)
//	  root.img: an ext4 disk with programs,
//	            compiled tests, kernel modules;
//	            with project quotas in force
//	  initrd:   the guest program, and the
//	            modules that find the disk
//	  qemu ────────────────────────────────────>  init: mounts, modules, root disk
//	       <── second serial port ─────────────   for each suite: begin, its output, end with the exit code
//	       <───────────────────────────────────   done; power off
//
// The processor is emulated (no virtualization is needed of the host), which makes everything 10 to 30 times slower.
//
// Invariants:
//
//	I1  A machine that did not say that it is done has failed, whatever its suites said.
//	I2  A suite that was asked for and did not end has failed.
//	I3  qemu ends with Boot.
package vm
