package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// TaskStats are what a task has used. Counters are since its start; times are nanoseconds.
type TaskStats struct {
	ID          string
	Name        string
	ServiceName string
	Slot        uint64
	NodeID      string
	Node        string
	Read        time.Time
	// CPUPercent is of one processor, since the sample before.
	CPUPercent float64
	CPU        CPUStats
	Memory     MemoryStats
	Pids       PidsStats
	IO         IOStats
	Network    *NetworkStats `json:",omitempty"`
}

// CPUStats are processor time.
type CPUStats struct {
	Usage, User, System time.Duration
	Throttling          Throttling
	Pressure            *Pressure `json:",omitempty"`
}

// Throttling is how a limit held a task back.
type Throttling struct {
	Periods, ThrottledPeriods uint64
	ThrottledTime             time.Duration
}

// MemoryStats are in bytes. Usage has no page cache in it that can be taken back at once.
type MemoryStats struct {
	Usage, Cache, Limit, Swap uint64
	OOMKills                  uint64
	Pressure                  *Pressure `json:",omitempty"`
}

// PidsStats are processes and threads; a Limit of 0 is none.
type PidsStats struct{ Current, Limit uint64 }

// IOStats are bytes and operations of disks.
type IOStats struct {
	ReadBytes, WriteBytes, Reads, Writes uint64
	Pressure                             *Pressure `json:",omitempty"`
}

// NetworkStats are what a task received (In) and sent (Out).
type NetworkStats struct {
	InBytes, InPackets, InDropped, OutBytes, OutPackets, OutDropped uint64
}

// Pressure is how long some or all processes of a task waited for a resource.
type Pressure struct{ Some, Full Stall }

// Stall is a share of time in percent, of the last 10, 60 and 300 seconds, and its sum.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// NewTaskStats shows statistics, with those of the sample before or nil.
func NewTaskStats(s, before *api.TaskStats) TaskStats {
	cpu, memory, io := s.GetCpu(), s.GetMemory(), s.GetIo()
	out := TaskStats{
		ID: s.GetTaskId(), Name: TaskName(s.GetServiceName(), s.GetSlot()), ServiceName: s.GetServiceName(), Slot: s.GetSlot(), NodeID: s.GetNodeId(), Node: s.GetNodeHostname(),
		Read: s.GetTime().AsTime(), CPUPercent: cpuPercent(s, before),
		CPU: CPUStats{
			Usage: nanos(cpu.GetUsageNanos()), User: nanos(cpu.GetUserNanos()), System: nanos(cpu.GetSystemNanos()),
			Throttling: Throttling{
				Periods: cpu.GetPeriods(), ThrottledPeriods: cpu.GetThrottledPeriods(), ThrottledTime: nanos(cpu.GetThrottledNanos()),
			},
			Pressure: pressureOf(cpu.GetPressure()),
		},
		Memory: MemoryStats{
			Usage: memory.GetUsageBytes() - min(memory.GetCacheBytes(), memory.GetUsageBytes()), Cache: memory.GetCacheBytes(),
			Limit: memory.GetLimitBytes(), Swap: memory.GetSwapBytes(), OOMKills: memory.GetOomKills(), Pressure: pressureOf(memory.GetPressure()),
		},
		Pids: PidsStats{s.GetPids(), s.GetPidsLimit()},
		IO: IOStats{
			ReadBytes: io.GetReadBytes(), WriteBytes: io.GetWriteBytes(), Reads: io.GetReads(), Writes: io.GetWrites(),
			Pressure: pressureOf(io.GetPressure()),
		},
	}
	if n := s.GetNetwork(); n != nil {
		out.Network = &NetworkStats{
			n.GetInBytes(), n.GetInPackets(), n.GetInDropped(), n.GetOutBytes(), n.GetOutPackets(), n.GetOutDropped(),
		}
	}
	return out
}

// cpuPercent is the processor time between two samples in percent of the time between them; 0 without a sample before.
func cpuPercent(s, before *api.TaskStats) float64 {
	passed := s.GetTime().AsTime().Sub(before.GetTime().AsTime())
	used := int64(s.GetCpu().GetUsageNanos() - before.GetCpu().GetUsageNanos())
	if before == nil || passed <= 0 || used < 0 {
		return 0
	}
	return 100 * float64(used) / float64(passed)
}

func pressureOf(p *api.Pressure) *Pressure {
	if p == nil {
		return nil
	}
	stall := func(s *api.Stall) Stall {
		return Stall{s.GetAvg10(), s.GetAvg60(), s.GetAvg300(), nanos(s.GetTotalNanos())}
	}
	return &Pressure{stall(p.GetSome()), stall(p.GetFull())}
}

func nanos(n uint64) time.Duration { return time.Duration(n) }
