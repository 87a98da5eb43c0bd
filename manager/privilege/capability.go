package privilege

import "slices"

// AllCapabilities is what --cap-add and --cap-drop call every capability.
const AllCapabilities = "ALL"

// capabilityPrefix begins the kernel's names; people leave it out.
const capabilityPrefix = "CAP_"

// Capabilities are those of Linux 6.18 (capability.h), in the order of their numbers. The list never shrinks.
func Capabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
		"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
		"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
		"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
		"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
		"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// DefaultCapabilities are those of a container that asks for nothing else: Docker's.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
	}
}

// KnownCapability reports whether name is a capability in the kernel's spelling, or ALL.
func KnownCapability(name string) bool {
	return name == AllCapabilities || slices.Contains(Capabilities(), name)
}

// effective returns the capabilities that remain of the default ones after some are added and dropped. What is named counts more than
// ALL, and dropping more than adding, as in Docker.
func effective(add, drop []string) []string {
	return slices.DeleteFunc(Capabilities(), func(name string) bool {
		switch {
		case slices.Contains(drop, name):
			return true
		case slices.Contains(add, name):
			return false
		case slices.Contains(drop, AllCapabilities):
			return true
		case slices.Contains(add, AllCapabilities):
			return false
		}
		return !slices.Contains(DefaultCapabilities(), name)
	})
}
