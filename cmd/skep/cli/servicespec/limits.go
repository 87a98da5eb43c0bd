package servicespec

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// limits are the flags of limits that only matter on the node, in the words of `docker run`.
type limits struct {
	memorySwap          flagvalue.MemorySwap
	cpusetCPUs          string
	readBPS, writeBPS   flagvalue.DeviceBytes
	readIOPS, writeIOPS flagvalue.DeviceOperations
	networkBPS          flagvalue.NetworkRates
}

func (l *limits) register(set *pflag.FlagSet) {
	set.Var(&l.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: -1 for unlimited swap (default: no swap)")
	set.StringVar(&l.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	set.Var(&l.readBPS, "device-read-bps", "Limit read rate (bytes per second) from a device")
	set.Var(&l.writeBPS, "device-write-bps", "Limit write rate (bytes per second) to a device")
	set.Var(&l.readIOPS, "device-read-iops", "Limit read rate (IO per second) from a device")
	set.Var(&l.networkBPS, "limit-network-bps", "Limit network rates (bits per second): RATE for both ways, or in=RATE,out=RATE")
	set.Var(&l.writeIOPS, "device-write-iops", "Limit write rate (IO per second) to a device")
}

// limitFlags are the names of the flags of limits.
func limitFlags() []string {
	return []string{"memory-swap", "cpuset-cpus", "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops", "limit-network-bps"}
}

// applyLimits changes what the flags name. A rate of a device stands until it is given anew; one of 0 takes it away.
func (s *shared) applyLimits(r *api.ResourceRequirements) {
	if s.changed("memory-swap") {
		r.MemorySwapBytes = int64(s.memorySwap)
	}
	if s.changed("cpuset-cpus") {
		r.CpusetCpus = s.cpusetCPUs
	}
	if s.changed("limit-network-bps") {
		applyNetworkRate(r, s.networkBPS)
	}
	for _, kind := range []struct {
		rates []flagvalue.DeviceRate
		field func(*api.DeviceRate) *uint64
	}{
		{s.readBPS, func(d *api.DeviceRate) *uint64 { return &d.ReadBps }},
		{s.writeBPS, func(d *api.DeviceRate) *uint64 { return &d.WriteBps }},
		{s.readIOPS, func(d *api.DeviceRate) *uint64 { return &d.ReadIops }},
		{s.writeIOPS, func(d *api.DeviceRate) *uint64 { return &d.WriteIops }},
	} {
		for _, rate := range kind.rates {
			*kind.field(deviceOf(r, rate.Path)) = rate.Rate
		}
	}
	r.DeviceRates = slices.DeleteFunc(r.DeviceRates, func(d *api.DeviceRate) bool {
		return d.ReadBps == 0 && d.WriteBps == 0 && d.ReadIops == 0 && d.WriteIops == 0
	})
}

// applyNetworkRate changes the ways that the flag names; a rate of 0 takes a limit away.
func applyNetworkRate(r *api.ResourceRequirements, given flagvalue.NetworkRates) {
	rate := &api.NetworkRate{InBps: r.GetNetworkRate().GetInBps(), OutBps: r.GetNetworkRate().GetOutBps()}
	if given.In != nil {
		rate.InBps = *given.In
	}
	if given.Out != nil {
		rate.OutBps = *given.Out
	}
	r.NetworkRate = rate
	if rate.InBps == 0 && rate.OutBps == 0 {
		r.NetworkRate = nil
	}
}

// deviceOf returns the entry of a device, making it if it is missing.
func deviceOf(r *api.ResourceRequirements, path string) *api.DeviceRate {
	at := slices.IndexFunc(r.DeviceRates, func(d *api.DeviceRate) bool { return d.GetPath() == path })
	if at < 0 {
		r.DeviceRates = append(r.DeviceRates, &api.DeviceRate{Path: path})
		return r.DeviceRates[len(r.DeviceRates)-1]
	}
	return r.DeviceRates[at]
}
