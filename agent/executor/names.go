package executor

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

// allCapabilities are those that a service can ask for, in the order of their numbers (linux/capability.h).
func allCapabilities() []string {
	return strings.Fields("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
		"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
		"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
		"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE")
}

const (
	capabilityPrefix = "CAP_"
	everyCapability  = "ALL"
)

// changeCapabilities adds to and drops from a set, as Docker does: ALL stands for every one, and what is both added and dropped
// is in the set if only ALL was dropped.
func changeCapabilities(set, add, drop []string) ([]string, error) {
	add, err := capabilityNames(add)
	if err != nil {
		return nil, err
	}
	drop, err = capabilityNames(drop)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, short := range allCapabilities() {
		name := capabilityPrefix + short
		in := slices.Contains(set, name)
		switch {
		case slices.Contains(drop, name):
			in = false
		case slices.Contains(add, name):
			in = true
		case slices.Contains(drop, everyCapability):
			in = false
		case slices.Contains(add, everyCapability):
			in = true
		}
		if in {
			out = append(out, name)
		}
	}
	return out, nil
}

// capabilityNames brings names such as net_admin to the form CAP_NET_ADMIN.
func capabilityNames(in []string) ([]string, error) {
	var out []string
	for _, name := range in {
		short := strings.TrimPrefix(strings.ToUpper(name), capabilityPrefix)
		switch {
		case short == everyCapability:
			out = append(out, everyCapability)
		case slices.Contains(allCapabilities(), short):
			out = append(out, capabilityPrefix+short)
		default:
			return nil, fault.New(fault.Invalid, "unknown capability %.40q: see capabilities(7)", name)
		}
	}
	return out, nil
}

// maxHostname is the kernel's limit in bytes.
const maxHostname = 64

// checkHostname refuses a name that would be more than one word in /etc/hosts.
func checkHostname(name string) error {
	if len(name) > maxHostname || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return fault.New(fault.Invalid, "host name %.80q is not made of letters, digits, dots and hyphens, at most %d", name, maxHostname)
	}
	return nil
}

const (
	// minRealtime and maxRealtime are SIGRTMIN and SIGRTMAX as libc numbers them.
	minRealtime = 34
	maxRealtime = 64
)

// parseSignal reads a signal such as SIGTERM, term, 15 or SIGRTMIN+3. Empty is SIGTERM.
func parseSignal(name string) (unix.Signal, error) {
	if name == "" {
		return unix.SIGTERM, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > maxRealtime {
			return 0, fault.New(fault.Invalid, "signal %d is not within 1 to %d", n, maxRealtime)
		}
		return unix.Signal(n), nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if s := unix.SignalNum("SIG" + short); s != 0 {
		return s, nil
	}
	if s := realtimeSignal(short); s != 0 {
		return s, nil
	}
	return 0, fault.New(fault.Invalid, "unknown signal %.40q: see signal(7)", name)
}

// realtimeSignal reads RTMIN, RTMIN+n, RTMAX and RTMAX-n, or returns 0.
func realtimeSignal(short string) unix.Signal {
	n := 0
	if rest, ok := strings.CutPrefix(short, "RTMIN"); ok {
		n = offset(rest, "+", minRealtime, 1)
	} else if rest, ok := strings.CutPrefix(short, "RTMAX"); ok {
		n = offset(rest, "-", maxRealtime, -1)
	}
	if n < minRealtime || n > maxRealtime {
		return 0
	}
	return unix.Signal(n)
}

func offset(rest, sign string, from, direction int) int {
	if rest == "" {
		return from
	}
	digits, ok := strings.CutPrefix(rest, sign)
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil {
		return 0
	}
	return from + direction*int(n)
}
