package control

import (
	"fmt"
	"path"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/cpulist"
)

// Limits of the limits of a task.
const (
	maxDeviceRates = 64   // more than a node has disks
	maxCPUSet      = 1024 // bytes
	maxDevicePath  = 256
	unlimitedSwap  = -1
	// A frame of 1500 bytes takes 1.5 s at the least rate; above the other one the kernel's token bucket counts bytes a second in more
	// than 32 bits.
	minNetworkRate = 8_000
	maxNetworkRate = 32_000_000_000
)

// requirements checks what a task may use up, whatever the node has.
func (p *problems) requirements(at string, r *api.ResourceRequirements) {
	p.resources(at+".limits", r.GetLimits())
	p.resources(at+".reservations", r.GetReservations())
	if len(r.GetLimits().GetGeneric()) > 0 {
		p.add(at+".limits.generic", "generic resources are reserved, not limited")
	}
	p.generic(at+".reservations.generic", r.GetReservations().GetGeneric())
	memory, swap := r.GetLimits().GetMemoryBytes(), r.GetMemorySwapBytes()
	switch {
	case swap == 0:
	case swap < unlimitedSwap:
		p.add(at+".memory_swap_bytes", "invalid memory swap value %d: write bytes, or -1 for no limit", swap)
	case memory == 0:
		p.add(at+".memory_swap_bytes", "a limit of memory and swap needs a memory limit: give --limit-memory too")
	case swap != unlimitedSwap && swap < memory:
		p.add(at+".memory_swap_bytes", "memory and swap together, %d bytes, should be larger than the memory limit, %d", swap, memory)
	}
	p.processors(at+".cpuset_cpus", r.GetCpusetCpus())
	p.networkRate(at+".network_rate.in_bps", r.GetNetworkRate().GetInBps())
	p.networkRate(at+".network_rate.out_bps", r.GetNetworkRate().GetOutBps())
	p.deviceRates(at+".device_rates", r.GetDeviceRates())
}

func (p *problems) processors(at, list string) {
	if list == "" {
		return
	}
	if _, err := cpulist.Parse(list); err != nil || len(list) > maxCPUSet {
		p.add(at, "invalid list of CPUs %q: write numbers and ranges, as in 0-3,5", clip(list))
	}
}

func (p *problems) networkRate(at string, bits uint64) {
	if bits != 0 && (bits < minNetworkRate || bits > maxNetworkRate) {
		p.add(at, "invalid network rate %d: write %d to %d bits a second, or 0 for no limit", bits, uint64(minNetworkRate), uint64(maxNetworkRate))
	}
}

func (p *problems) deviceRates(field string, rates []*api.DeviceRate) {
	if len(rates) > maxDeviceRates {
		p.add(field, "%d devices are too many: at most %d are allowed", len(rates), maxDeviceRates)
		return
	}
	seen := map[string]bool{}
	for i, r := range rates {
		at := fmt.Sprintf("%s[%d]", field, i)
		device := r.GetPath()
		switch {
		case !strings.HasPrefix(device, "/dev/") || path.Clean(device) != device || len(device) > maxDevicePath || strings.ContainsRune(device, 0):
			p.add(at+".path", "invalid device %q: must be a path below /dev", clip(device))
		case seen[device]:
			p.add(at+".path", "duplicate device: %s", clip(device))
		}
		seen[device] = true
		const maxIOPS = 1<<32 - 1 // the kernel's number has 32 bits
		if r.GetReadIops() > maxIOPS || r.GetWriteIops() > maxIOPS {
			p.add(at, "too many operations a second: at most %d can be set", uint64(maxIOPS))
		}
	}
}

// backoff checks how the delay of restarts grows.
func (p *problems) backoff(path string, r *api.RestartPolicy) {
	p.value(path+".backoff", r.GetBackoff())
	p.duration(path+".max_delay", r.GetMaxDelay())
	exponential := r.GetBackoff() == api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL
	switch {
	case !exponential && r.GetMaxDelay() != nil:
		p.add(path+".max_delay", "without an exponential back-off the delay does not grow: leave it out, or use --restart-backoff exponential")
	case exponential && r.GetDelay().AsDuration() <= 0:
		p.add(path+".delay", "with an exponential back-off it must be above 0: it is what is doubled")
	case exponential && r.GetMaxDelay().AsDuration() < r.GetDelay().AsDuration():
		p.add(path+".max_delay", "%v is below the delay, %v", r.GetMaxDelay().AsDuration(), r.GetDelay().AsDuration())
	}
}
