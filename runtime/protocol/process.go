package protocol

import "time"

// Process is one of a container's, as the kernel shows it.
type Process struct {
	// Pid is the number on the host, Inner that in the container, and Parent the parent's on the host.
	Pid, Inner, Parent int
	// UID is the user's id in the container.
	UID uint32
	// State is one letter, as in proc_pid_stat(5).
	State string
	// CPU is the processor time, and Age the time since the start.
	CPU, Age time.Duration
	// Resident is in bytes.
	Resident uint64
	// Command is the program with its arguments, or its name in brackets if it has none; cut at 4096 bytes.
	Command string
}
