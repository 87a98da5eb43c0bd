// Package lsm knows by which of the kernel's security modules containers can be confined here, and gives AppArmor the profile that they
// have by default.
//
// The profile is default.profile. The kernel takes it in a compiled form, default.bin, which is in the program, so that no node needs
// AppArmor's tools. To compile it anew takes apparmor_parser 3.0 or later and its abi files (Debian's package apparmor):
//
//	go generate ./runtime/lsm
//
// The policy of SELinux is the node's, and has labels for containers; each container gets a pair of categories of its own with them, so that
// none reaches the files and processes of another (MCS).
//
// What a process is confined by from its execve on, package launch tells the kernel.
//
// All functions are safe for concurrent use.
//
// Sources: landlock(7), apparmor.d(5), linux/Documentation/admin-guide/LSM/apparmor.rst, security/apparmor/apparmorfs.c.
package lsm

//go:generate sh generate.sh
