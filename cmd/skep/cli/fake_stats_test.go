package cli_test

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// ReadStats answers with one task more than a sample ago: it used half of a processor, and everything else grew.
func (f *fake) ReadStats(_ context.Context, r *api.ReadStatsRequest) (*api.ReadStatsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.samples++
	n := f.samples
	out := &api.ReadStatsResponse{}
	for _, target := range r.GetTargets() {
		if _, err := lookUp("service or task", f.services, serviceNamed, target); err != nil {
			return nil, err
		}
	}
	stats := &api.TaskStats{
		TaskId: "0123456789abcdefghijklmno", ServiceName: "web", Slot: 1, NodeId: "node1", NodeHostname: "host1",
		Time: timestamppb.New(born().Add(time.Duration(n) * 2 * time.Second)),
		Cpu:  &api.CPUStats{UsageNanos: n * 1_000_000_000, Periods: 20, ThrottledPeriods: 10, ThrottledNanos: 5},
		Memory: &api.MemoryStats{
			UsageBytes: 20 << 20, CacheBytes: 4 << 20, LimitBytes: 64 << 20, OomKills: 1,
			Pressure: &api.Pressure{Some: &api.Stall{Avg10: 1.5, TotalNanos: 7}, Full: &api.Stall{}},
		},
		Pids: 3, PidsLimit: 100, Io: &api.IOStats{ReadBytes: 1_500_000, WriteBytes: 2000, Reads: 5, Writes: 6},
		Network: &api.NetworkStats{InBytes: 1000, OutBytes: 2_000_000, InPackets: 1},
	}
	out.Tasks = append(out.Tasks, stats)
	if n > 1 {
		out.Tasks = append(out.Tasks, &api.TaskStats{TaskId: "new", ServiceName: "web", Slot: 2, Time: stats.GetTime()})
	}
	if f.statsGap != "" {
		out.Gaps = append(out.Gaps, &api.StatsGap{NodeId: "node2", Reason: f.statsGap})
	}
	return out, nil
}
