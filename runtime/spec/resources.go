package spec

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	c.unsupported(map[string]bool{
		"linux.resources.devices": len(r.Devices) > 0 && !c.bundle, "linux.resources.blockIO": r.BlockIO != nil,
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
	if m.Swap != nil && *m.Swap != c.plan.Limits.Memory {
		c.bad("linux.resources.memory.swap", "must be the same as the limit: containers don't swap")
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		c.plan.Limits.MemoryReservation = *m.Reservation
		if limit := c.plan.Limits.Memory; limit > 0 && *m.Reservation > limit {
			c.bad("linux.resources.memory.reservation", "%d bytes, above the limit of %d", *m.Reservation, limit)
		}
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
		"linux.resources.cpu.cpus": r.Cpus != "", "linux.resources.cpu.mems": r.Mems != "",
		"linux.resources.cpu.realtimeRuntime": r.RealtimeRuntime != nil && *r.RealtimeRuntime != 0,
		"linux.resources.cpu.realtimePeriod":  r.RealtimePeriod != nil && *r.RealtimePeriod != 0,
		"linux.resources.cpu.idle":            r.Idle != nil && *r.Idle != 0,
		"linux.resources.cpu.burst":           r.Burst != nil && *r.Burst != 0,
	})
	limits := &c.plan.Limits
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
