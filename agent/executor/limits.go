package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/cpulist"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// minMemory is the least memory limit in bytes: below it the kernel kills a process before its first instruction.
	minMemory = 4 << 20
	// cpuPeriod is the time in microseconds over which a CPU limit is averaged, and minQuota the least share of it, the
	// kernel's.
	cpuPeriod = 100_000
	minQuota  = 1_000
)

// limits bounds what the container can use up.
func (p plan) limits(s *specs.Spec) error {
	required := p.task.GetSpec().GetResources()
	limits := required.GetLimits()
	r := s.Linux.Resources
	if memory := limits.GetMemoryBytes(); memory != 0 {
		if memory < minMemory {
			return fault.New(fault.Invalid, "memory limit of %s: the least is %s", units.BytesSize(float64(memory)), units.BytesSize(minMemory))
		}
		swap := memory // together with the memory, so none
		if asked := required.GetMemorySwapBytes(); asked != 0 {
			swap = asked
		}
		r.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &swap}
		if reserved := required.GetReservations().GetMemoryBytes(); reserved > 0 && reserved <= memory {
			r.Memory.Reservation = &reserved
		}
	}
	if cpus := limits.GetNanoCpus(); cpus != 0 {
		quota, period := cpus/(1_000_000_000/cpuPeriod), uint64(cpuPeriod)
		if quota < minQuota {
			return fault.New(fault.Invalid, "CPU limit of %.4g: the least is %.4g", float64(cpus)/1e9, float64(minQuota)/cpuPeriod)
		}
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if cpus := required.GetCpusetCpus(); cpus != "" {
		online, err := cpulist.Online()
		if err == nil {
			err = checkCPUs(cpus, online)
		}
		if err != nil {
			return err
		}
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		r.CPU.Cpus = cpus
	}
	var err error
	if r.BlockIO, err = p.deviceRates(required.GetDeviceRates()); err != nil {
		return err
	}
	switch pids := limits.GetPids(); {
	case pids < 0:
		return fault.New(fault.Invalid, "limit of %d processes: the least is 1", pids)
	case pids > 0:
		r.Pids = &specs.LinuxPids{Limit: &pids}
	}
	return nil
}

// checkCPUs refuses a list of processors when some of them are not online here.
func checkCPUs(list, online string) error {
	asked, err := cpulist.Parse(list)
	if err != nil {
		return fault.New(fault.Invalid, "CPUs %s: %v", list, err)
	}
	have, err := cpulist.Parse(online)
	if err != nil {
		return fmt.Errorf("the processors that are online: %w", err)
	}
	if !have.Has(asked) {
		return fault.New(fault.Invalid, "CPUs %s: this node has %s: ask for those, or for other nodes (--constraint)", list, online)
	}
	return nil
}

// deviceRates turns bounds on devices of this node into the kernel's numbers for them; nil for none.
func (p plan) deviceRates(rates []*api.DeviceRate) (*specs.LinuxBlockIO, error) {
	if len(rates) == 0 {
		return nil, nil
	}
	out := &specs.LinuxBlockIO{}
	add := func(list *[]specs.LinuxThrottleDevice, major, minor int64, rate uint64) {
		if rate == 0 {
			return
		}
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		*list = append(*list, d)
	}
	for _, r := range rates {
		major, minor, err := blockDevice(r.GetPath())
		if err != nil {
			return nil, err
		}
		add(&out.ThrottleReadBpsDevice, major, minor, r.GetReadBps())
		add(&out.ThrottleWriteBpsDevice, major, minor, r.GetWriteBps())
		add(&out.ThrottleReadIOPSDevice, major, minor, r.GetReadIops())
		add(&out.ThrottleWriteIOPSDevice, major, minor, r.GetWriteIops())
	}
	return out, nil
}

// blockDevice returns the kernel's numbers for a disk. Partitions have no limits of their own (blk-cgroup.c).
func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return 0, 0, fault.New(fault.Invalid, "limit of device %s: this node has no such device", path)
	case err != nil:
		return 0, 0, fmt.Errorf("limit of device %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFBLK:
		return 0, 0, fault.New(fault.Invalid, "limit of device %s: it is no block device on this node", path)
	}
	major, minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	if _, err := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d/partition", major, minor)); err == nil {
		return 0, 0, fault.New(fault.Invalid, "limit of device %s: it is a partition: name the whole disk, which alone can be limited", path)
	}
	return major, minor, nil
}
