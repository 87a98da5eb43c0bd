package spec

import (
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/cgroup"
)

// MinMemory is the lowest memory limit, in bytes. Below it the kernel's own bookkeeping for the process does not fit,
// and the container would be killed before its first instruction.
const MinMemory = 4 << 20

func (c *compiler) resources(r *specs.LinuxResources) {
	if c.bundle {
		c.deviceRules(r)
	}
	if r == nil {
		return
	}
	if !c.bundle && len(r.Devices) > 0 {
		c.furtherDevices(r.Devices)
	}
	c.unsupported(map[string]bool{
		"linux.resources.hugepageLimits": len(r.HugepageLimits) > 0, "linux.resources.network": r.Network != nil,
		"linux.resources.rdma": len(r.Rdma) > 0, "linux.resources.unified": len(r.Unified) > 0,
	})
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		c.plan.Limits.Pids = *r.Pids.Limit
	}
	if r.Memory != nil {
		c.memory(r.Memory)
	}
	if r.CPU != nil {
		c.cpu(r.CPU)
	}
	if r.BlockIO != nil {
		c.blockIO(r.BlockIO)
	}
}

// furtherDevices adds devices to those that every container has. Each must be named: there is no rule here that opens up a kind
// of device, or all.
func (c *compiler) furtherDevices(list []specs.LinuxDeviceCgroup) {
	if len(list) > maxDevices {
		c.bad("linux.resources.devices", "%d rules, at most %d are possible", len(list), maxDevices)
		return
	}
	rules := cgroup.StockDevices()
	for _, d := range list {
		r := c.deviceRule(d)
		if !c.has(r) { // I9
			c.bad("linux.resources.devices", "each must allow to read or write one of linux.devices, by its type and both of its numbers")
		}
		rules = append(rules, r)
	}
	c.plan.Limits.Devices = rules
}

func (c *compiler) memory(m *specs.LinuxMemory) {
	c.unsupported(map[string]bool{
		"linux.resources.memory.swappiness": m.Swappiness != nil, "linux.resources.memory.kernelTCP": m.KernelTCP != nil,
		"linux.resources.memory.disableOOMKiller": m.DisableOOMKiller != nil && *m.DisableOOMKiller,
	})
	if m.Limit != nil && *m.Limit > 0 {
		c.plan.Limits.Memory = *m.Limit
		if *m.Limit < MinMemory {
			c.bad("linux.resources.memory.limit", "%d bytes, the least is %d (4 MiB)", *m.Limit, MinMemory)
		}
	}
	if m.Swap != nil && *m.Swap != 0 {
		c.swap(*m.Swap)
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		c.plan.Limits.MemoryReservation = *m.Reservation
		if limit := c.plan.Limits.Memory; limit > 0 && *m.Reservation > limit {
			c.bad("linux.resources.memory.reservation", "%d bytes, above the limit of %d", *m.Reservation, limit)
		}
	}
}

// swap takes the limit of memory and swap together.
func (c *compiler) swap(both int64) {
	limit := c.plan.Limits.Memory
	switch {
	case limit == 0 && both == cgroup.Unlimited, limit > 0 && both == limit: // what is without it
	case limit == 0:
		c.bad("linux.resources.memory.swap", "%d bytes without a memory limit", both)
	case both != cgroup.Unlimited && both < limit:
		c.bad("linux.resources.memory.swap", "%d bytes are memory and swap together, and below the memory limit of %d", both, limit)
	default:
		c.plan.Limits.MemorySwap = both
	}
}

// Bounds of the kernel for the processor quota.
const (
	minCPUPeriod = time.Millisecond
	maxCPUPeriod = time.Second
	minCPUQuota  = time.Millisecond
	maxCPUQuota  = 1 << 20 * time.Second // far above any machine
)

func (c *compiler) cpu(r *specs.LinuxCPU) {
	c.unsupported(map[string]bool{
		"linux.resources.cpu.realtimeRuntime": r.RealtimeRuntime != nil && *r.RealtimeRuntime != 0,
		"linux.resources.cpu.realtimePeriod":  r.RealtimePeriod != nil && *r.RealtimePeriod != 0,
		"linux.resources.cpu.idle":            r.Idle != nil && *r.Idle != 0,
		"linux.resources.cpu.burst":           r.Burst != nil && *r.Burst != 0,
	})
	limits := &c.plan.Limits
	limits.CPUs = c.list("linux.resources.cpu.cpus", r.Cpus)
	limits.Mems = c.list("linux.resources.cpu.mems", r.Mems)
	if r.Shares != nil {
		limits.CPUShares = *r.Shares
	}
	if r.Period != nil && *r.Period != 0 {
		limits.CPUPeriod = time.Duration(min(*r.Period, uint64(2*maxCPUPeriod.Microseconds()))) * time.Microsecond
		if limits.CPUPeriod < minCPUPeriod || limits.CPUPeriod > maxCPUPeriod {
			c.bad("linux.resources.cpu.period", "%d µs is not in 1 ms to 1 s", *r.Period)
		}
	}
	if r.Quota != nil && *r.Quota > 0 {
		limits.CPUQuota = time.Duration(min(*r.Quota, 2*maxCPUQuota.Microseconds())) * time.Microsecond
		if limits.CPUQuota < minCPUQuota || limits.CPUQuota > maxCPUQuota {
			c.bad("linux.resources.cpu.quota", "%d µs is below 1 ms or too high", *r.Quota)
		}
	}
}

// maxList bounds a list of processors, in bytes, far above what machines need.
const maxList = 4096

// list checks the kernel's form of a list of processors or memory nodes.
func (c *compiler) list(field, text string) string {
	if text != "" && (len(text) > maxList || !isList(text)) {
		c.bad(field, "%.64q is not a list such as 0-3,5", text)
	}
	return text
}

func isList(text string) bool {
	number := func(s string) bool { return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == "" }
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "-")
		if !number(from) || span && !number(to) {
			return false
		}
	}
	return true
}

func (c *compiler) blockIO(b *specs.LinuxBlockIO) {
	c.unsupported(map[string]bool{
		"linux.resources.blockIO.weight": b.Weight != nil && *b.Weight != 0, "linux.resources.blockIO.weightDevice": len(b.WeightDevice) > 0,
		"linux.resources.blockIO.leafWeight": b.LeafWeight != nil && *b.LeafWeight != 0,
	})
	c.throttle("throttleReadBpsDevice", b.ThrottleReadBpsDevice, func(r *cgroup.IORate) *uint64 { return &r.ReadBPS })
	c.throttle("throttleWriteBpsDevice", b.ThrottleWriteBpsDevice, func(r *cgroup.IORate) *uint64 { return &r.WriteBPS })
	c.throttle("throttleReadIOPSDevice", b.ThrottleReadIOPSDevice, func(r *cgroup.IORate) *uint64 { return &r.ReadIOPS })
	c.throttle("throttleWriteIOPSDevice", b.ThrottleWriteIOPSDevice, func(r *cgroup.IORate) *uint64 { return &r.WriteIOPS })
}

// throttle adds one kind of rate to the devices' limits.
func (c *compiler) throttle(name string, list []specs.LinuxThrottleDevice, rate func(*cgroup.IORate) *uint64) {
	field := "linux.resources.blockIO." + name
	if len(list) > maxDevices {
		c.bad(field, "%d devices, at most %d are possible", len(list), maxDevices)
		return
	}
	for _, d := range list {
		if d.Major < 0 || d.Minor < 0 || d.Rate == 0 {
			c.bad(field, "device %d:%d with a rate of %d: numbers of a device are not negative, and a rate is above 0", d.Major, d.Minor, d.Rate)
			continue
		}
		io := &c.plan.Limits.IO
		at := slices.IndexFunc(*io, func(r cgroup.IORate) bool { return r.Major == d.Major && r.Minor == d.Minor })
		if at < 0 {
			at = len(*io)
			*io = append(*io, cgroup.IORate{Major: d.Major, Minor: d.Minor})
		}
		*rate(&(*io)[at]) = d.Rate
	}
}
