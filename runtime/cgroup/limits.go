package cgroup

import (
	"fmt"
	"strconv"
	"time"
)

// Limits are what a container may use. The zero value limits nothing.
type Limits struct {
	// Memory is in bytes; 0 is no limit.
	Memory int64
	// MemorySwap is memory and swap together, in bytes, not below Memory, which must be set: 0 is no swap at all, and
	// Unlimited as much as there is.
	MemorySwap int64
	// MemoryReservation is in bytes: what is kept for the container under pressure; 0 is none.
	MemoryReservation int64
	// CPUQuota is the processor time per CPUPeriod; 0 is no limit.
	CPUQuota time.Duration
	// CPUPeriod is 100 ms if 0.
	CPUPeriod time.Duration
	// CPUShares is the relative weight, as on v1: 2 to 262144; 0 is the kernel's default, 1024.
	CPUShares uint64
	// CPUs are the processors to run on and Mems the memory nodes to allocate from, as a list such as "0-3,5"; "" is all.
	CPUs, Mems string
	// Pids is the most processes and threads; 0 is no limit.
	Pids int64
	// Devices are rules that follow one which denies everything, in order. If nil they allow the use, not the making, of
	// the devices that every container has. Elsewhere a container with a user namespace can open no device either: its
	// mounts are nodev, and it can't make nodes. The controller is a second wall.
	Devices []DeviceRule
	// IO bounds reads and writes, at most one entry for a device.
	IO []IORate
}

// Unlimited is the amount of swap without a limit.
const Unlimited = -1

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
	// The processes of a container live and die together: a half-killed one is worse than a dead one. A tree without the
	// memory controller has no such file.
	s := []setting{{"memory.oom.group", "1", true}}
	if l.Memory > 0 {
		s = append(
			s,
			setting{"memory.high", strconv.FormatInt(l.high(), 10), false},
			setting{"memory.max", strconv.FormatInt(l.Memory, 10), false},
			setting{"memory.swap.max", l.swap(), true}, // absent without swap accounting
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
	if l.CPUs != "" {
		s = append(s, setting{"cpuset.cpus", l.CPUs, false})
	}
	if l.Mems != "" {
		s = append(s, setting{"cpuset.mems", l.Mems, false})
	}
	if l.Pids > 0 {
		s = append(s, setting{"pids.max", strconv.FormatInt(l.Pids, 10), false})
	}
	for _, rate := range l.IO {
		s = append(s, rate.unified())
	}
	return s
}

// highPart is the part of the memory limit that lies above memory.high.
const highPart = 128

// high is where the kernel begins to reclaim memory on account of whoever allocates: 1/128 below the limit, so that what
// can be given back (the page cache) is, before the limit kills. It is that close because further above it the kernel
// also makes the process sleep, which from 1.2 % on is felt: a container that can give nothing back would stand still
// for minutes instead of being killed.
func (l Limits) high() int64 { return l.Memory - l.Memory/highPart }

// swap is what v2 calls the limit of swap alone.
func (l Limits) swap() string {
	if l.MemorySwap == Unlimited {
		return "max"
	}
	return strconv.FormatInt(max(l.MemorySwap-l.Memory, 0), 10)
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
			s = append(s, setting{"memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10), false})
		}
		if l.Memory > 0 && l.MemorySwap != Unlimited { // the file is absent without swap accounting
			s = append(s, setting{"memory.memsw.limit_in_bytes", strconv.FormatInt(max(l.MemorySwap, l.Memory), 10), true})
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
	case "cpuset":
		if l.CPUs != "" {
			s = append(s, setting{"cpuset.cpus", l.CPUs, false})
		}
		if l.Mems != "" {
			s = append(s, setting{"cpuset.mems", l.Mems, false})
		}
	case "blkio":
		for _, rate := range l.IO {
			s = append(s, rate.legacy()...)
		}
	case "pids":
		if l.Pids > 0 {
			s = append(s, setting{"pids.max", strconv.FormatInt(l.Pids, 10), false})
		}
	case "devices":
		s = append(s, setting{"devices.deny", "a", false})
		for _, r := range l.deviceRules() {
			s = append(s, r.legacy())
		}
	}
	return s
}
