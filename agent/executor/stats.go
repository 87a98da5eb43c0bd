package executor

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/client"
)

// Processes returns the first processes of the containers here, by their tasks' ids: of those whose program runs, and of those that wait
// for it to begin.
func (e *Executor) Processes(ctx context.Context) (running, waiting map[string]int, err error) {
	states, err := e.cfg.Runtime.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	running, waiting = map[string]int{}, map[string]int{}
	for _, s := range states {
		switch {
		case s.PID == 0:
		case s.Started:
			running[s.ID] = s.PID
		default:
			waiting[s.ID] = s.PID
		}
	}
	return running, waiting, nil
}

// Stats returns what a task that runs here has used, or an error of the kind fault.NotFound.
func (e *Executor) Stats(ctx context.Context, id string) (*api.TaskStats, error) {
	used, err := e.cfg.Runtime.Stats(ctx, id)
	if err != nil {
		return nil, err
	}
	traffic, err := e.cfg.Network.Traffic(id)
	if err != nil {
		return nil, err
	}
	return &api.TaskStats{
		TaskId: id, Time: timestamppb.New(used.Time),
		Cpu: &api.CPUStats{
			UsageNanos: nanos(used.CPU.Usage), UserNanos: nanos(used.CPU.User), SystemNanos: nanos(used.CPU.System),
			Periods: used.CPU.Periods, ThrottledPeriods: used.CPU.Throttled, ThrottledNanos: nanos(used.CPU.ThrottledTime),
			Pressure: pressure(used.CPU.Pressure),
		},
		Memory: &api.MemoryStats{
			UsageBytes: used.Memory.Usage, CacheBytes: used.Memory.Cache, LimitBytes: used.Memory.Limit, SwapBytes: used.Memory.Swap,
			OomKills: used.Memory.OOMKills, Pressure: pressure(used.Memory.Pressure),
		},
		Pids: used.Pids, PidsLimit: used.PidsLimit,
		Io: &api.IOStats{
			ReadBytes: used.IO.ReadBytes, WriteBytes: used.IO.WriteBytes, Reads: used.IO.Reads, Writes: used.IO.Writes,
			Pressure: pressure(used.IO.Pressure),
		},
		Network: traffic,
	}, nil
}

func nanos(d time.Duration) uint64 { return uint64(max(d, 0)) }

func pressure(p *client.Pressure) *api.Pressure {
	if p == nil {
		return nil
	}
	stall := func(s client.Stall) *api.Stall {
		return &api.Stall{Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300, TotalNanos: nanos(s.Total)}
	}
	return &api.Pressure{Some: stall(p.Some), Full: stall(p.Full)}
}
