package cgroup

import (
	"fmt"
	"strconv"
	"time"
)

// Limits are what a container may use. The zero value limits nothing.
type Limits struct {
	// Memory is in bytes and includes swap; 0 is no limit.
	Memory int64
	// MemoryReservation is in bytes: what is kept for the container under pressure; 0 is none.
	MemoryReservation int64
	// CPUQuota is the processor time per CPUPeriod; 0 is no limit.
	CPUQuota time.Duration
	// CPUPeriod is 100 ms if 0.
	CPUPeriod time.Duration
	// CPUShares is the relative weight, as on v1: 2 to 262144; 0 is the kernel's default, 1024.
	CPUShares uint64
	// Pids is the most processes and threads; 0 is no limit.
	Pids int64
	// Devices are rules that follow one which denies everything, in order. If nil they allow the use, not the making, of
	// the devices that every container has. Elsewhere a container with a user namespace can open no device either: its
	// mounts are nodev, and it can't make nodes. The controller is a second wall.
	Devices []DeviceRule
}

// defaultPeriod is the kernel's own.
const defaultPeriod = 100 * time.Millisecond

func (l Limits) period() time.Duration {
	if l.CPUPeriod == 0 {
		return defaultPeriod
	}
	return l.CPUPeriod
}

// setting is one file of a group and what to write into it.
type setting struct {
	file, value string
	// optional settings are skipped where the kernel does not offer the file or refuses the value.
	optional bool
}

// unified gives the settings for a v2 group.
func (l Limits) unified() []setting {
	var s []setting
	if l.Memory > 0 {
		s = append(
			s,
			setting{"memory.max", strconv.FormatInt(l.Memory, 10), false},
			setting{"memory.swap.max", "0", true}, // absent without swap accounting
			// The processes of a container live and die together: a half-killed one is worse than a dead one.
			setting{"memory.oom.group", "1", true},
		)
	}
	if l.MemoryReservation > 0 {
		s = append(s, setting{"memory.low", strconv.FormatInt(l.MemoryReservation, 10), false})
	}
	if l.CPUQuota > 0 {
		s = append(s, setting{"cpu.max", fmt.Sprintf("%d %d", l.CPUQuota.Microseconds(), l.period().Microseconds()), false})
	}
	if l.CPUShares > 0 {
		s = append(s, setting{"cpu.weight", strconv.FormatUint(weight(l.CPUShares), 10), false})
	}
	if l.Pids > 0 {
		s = append(s, setting{"pids.max", strconv.FormatInt(l.Pids, 10), false})
	}
	return s
}

// weight maps v1's range of shares, 2 to 262144, linearly onto v2's, 1 to 10000.
func weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// legacy gives the settings for the group of a v1 hierarchy.
func (l Limits) legacy(controllers []string) []setting {
	var s []setting
	for _, c := range controllers {
		s = append(s, l.controller(c)...)
	}
	return s
}

// controller gives the settings for one v1 controller, in the order in which the kernel wants them.
func (l Limits) controller(name string) []setting {
	var s []setting
	switch name {
	case "memory":
		if l.Memory > 0 {
			limit := strconv.FormatInt(l.Memory, 10)
			s = append(
				s,
				setting{"memory.limit_in_bytes", limit, false},
				setting{"memory.memsw.limit_in_bytes", limit, true}, // absent without swap accounting
			)
		}
		if l.MemoryReservation > 0 {
			s = append(s, setting{"memory.soft_limit_in_bytes", strconv.FormatInt(l.MemoryReservation, 10), false})
		}
	case "cpu":
		if l.CPUShares > 0 {
			s = append(s, setting{"cpu.shares", strconv.FormatUint(l.CPUShares, 10), false})
		}
		if l.CPUQuota > 0 {
			s = append(
				s,
				setting{"cpu.cfs_period_us", strconv.FormatInt(l.period().Microseconds(), 10), false},
				setting{"cpu.cfs_quota_us", strconv.FormatInt(l.CPUQuota.Microseconds(), 10), false},
			)
		}
	case "pids":
		if l.Pids > 0 {
			s = append(s, setting{"pids.max", strconv.FormatInt(l.Pids, 10), false})
		}
	case "devices":
		s = append(s, setting{"devices.deny", "a", false})
		rules := l.Devices
		if rules == nil {
			rules = stockDevices("rw")
		}
		for _, r := range rules {
			s = append(s, r.legacy())
		}
	}
	return s
}
