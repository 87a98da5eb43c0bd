package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skep-io/skep/api"
)

// family is one metric of tasks, with the labels service and task.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	// value returns false where the node does not know.
	value func(*api.TaskStats) (float64, bool)
}

// families are all metrics of tasks.
func families() (out []family) {
	add := func(kind prometheus.ValueType, name, help string, value func(*api.TaskStats) (float64, bool)) {
		out = append(out, family{prometheus.NewDesc("skep_task_"+name, help, []string{"service", "task"}, nil), kind, value})
	}
	known := func(v func(*api.TaskStats) uint64) func(*api.TaskStats) (float64, bool) {
		return func(s *api.TaskStats) (float64, bool) { return float64(v(s)), true }
	}
	count := func(name, help string, v func(*api.TaskStats) uint64) {
		add(prometheus.CounterValue, name, help, known(v))
	}
	gauge := func(name, help string, v func(*api.TaskStats) uint64) {
		add(prometheus.GaugeValue, name, help, known(v))
	}
	seconds := func(name, help string, v func(*api.TaskStats) uint64) {
		add(prometheus.CounterValue, name, help, func(s *api.TaskStats) (float64, bool) { return time.Duration(v(s)).Seconds(), true })
	}
	limit := func(name, help string, v func(*api.TaskStats) uint64) { // 0 is none
		add(prometheus.GaugeValue, name, help, func(s *api.TaskStats) (float64, bool) { return float64(v(s)), v(s) > 0 })
	}
	traffic := func(name, help string, v func(*api.NetworkStats) uint64) {
		add(prometheus.CounterValue, name, help, func(s *api.TaskStats) (float64, bool) { return float64(v(s.GetNetwork())), s.GetNetwork() != nil })
	}

	seconds("cpu_usage_seconds_total", "Processor time.", func(s *api.TaskStats) uint64 { return s.GetCpu().GetUsageNanos() })
	seconds("cpu_user_seconds_total", "Processor time in the program.", func(s *api.TaskStats) uint64 { return s.GetCpu().GetUserNanos() })
	seconds("cpu_system_seconds_total", "Processor time in the kernel.", func(s *api.TaskStats) uint64 { return s.GetCpu().GetSystemNanos() })
	count("cpu_cfs_periods_total", "Periods of the processor limit in which the task ran.", func(s *api.TaskStats) uint64 { return s.GetCpu().GetPeriods() })
	count("cpu_cfs_throttled_periods_total", "Periods in which the processor limit held the task back.",
		func(s *api.TaskStats) uint64 { return s.GetCpu().GetThrottledPeriods() })
	seconds("cpu_cfs_throttled_seconds_total", "Time for which the processor limit held the task back.",
		func(s *api.TaskStats) uint64 { return s.GetCpu().GetThrottledNanos() })

	gauge("memory_usage_bytes", "Memory, page cache included.", func(s *api.TaskStats) uint64 { return s.GetMemory().GetUsageBytes() })
	gauge("memory_working_set_bytes", "Memory without the page cache that can be taken back at once.",
		func(s *api.TaskStats) uint64 {
			return s.GetMemory().GetUsageBytes() - min(s.GetMemory().GetCacheBytes(), s.GetMemory().GetUsageBytes())
		})
	gauge("memory_swap_bytes", "Memory that is swapped out.", func(s *api.TaskStats) uint64 { return s.GetMemory().GetSwapBytes() })
	limit("memory_limit_bytes", "The most memory that the task may have; missing without a limit.",
		func(s *api.TaskStats) uint64 { return s.GetMemory().GetLimitBytes() })
	count("oom_events_total", "Processes that the kernel killed for want of memory.", func(s *api.TaskStats) uint64 { return s.GetMemory().GetOomKills() })

	gauge("threads", "Processes and threads.", func(s *api.TaskStats) uint64 { return s.GetPids() })
	limit("threads_max", "The most processes and threads that the task may have; missing without a limit.",
		func(s *api.TaskStats) uint64 { return s.GetPidsLimit() })

	count("fs_reads_bytes_total", "Bytes read from block devices.", func(s *api.TaskStats) uint64 { return s.GetIo().GetReadBytes() })
	count("fs_writes_bytes_total", "Bytes written to block devices.", func(s *api.TaskStats) uint64 { return s.GetIo().GetWriteBytes() })
	count("fs_reads_total", "Reads from block devices.", func(s *api.TaskStats) uint64 { return s.GetIo().GetReads() })
	count("fs_writes_total", "Writes to block devices.", func(s *api.TaskStats) uint64 { return s.GetIo().GetWrites() })

	traffic("network_receive_bytes_total", "Bytes received.", (*api.NetworkStats).GetInBytes)
	traffic("network_receive_packets_total", "Packets received.", (*api.NetworkStats).GetInPackets)
	traffic("network_receive_packets_dropped_total", "Packets for the task that were dropped.", (*api.NetworkStats).GetInDropped)
	traffic("network_transmit_bytes_total", "Bytes sent.", (*api.NetworkStats).GetOutBytes)
	traffic("network_transmit_packets_total", "Packets sent.", (*api.NetworkStats).GetOutPackets)
	traffic("network_transmit_packets_dropped_total", "Packets of the task that were dropped.", (*api.NetworkStats).GetOutDropped)

	for _, resource := range []struct {
		name, text string
		of         func(*api.TaskStats) *api.Pressure
	}{
		{"cpu", "a processor", func(s *api.TaskStats) *api.Pressure { return s.GetCpu().GetPressure() }},
		{"memory", "memory", func(s *api.TaskStats) *api.Pressure { return s.GetMemory().GetPressure() }},
		{"io", "input or output", func(s *api.TaskStats) *api.Pressure { return s.GetIo().GetPressure() }},
	} {
		pressure := func(name, help string, stall func(*api.Pressure) *api.Stall) {
			add(prometheus.CounterValue, "pressure_"+resource.name+name, help+" waited for "+resource.text+" (PSI, cgroup v2 only).",
				func(s *api.TaskStats) (float64, bool) {
					p := resource.of(s)
					return time.Duration(stall(p).GetTotalNanos()).Seconds(), p != nil
				})
		}
		pressure("_waiting_seconds_total", "Time in which some processes", (*api.Pressure).GetSome)
		pressure("_stalled_seconds_total", "Time in which all processes", (*api.Pressure).GetFull)
	}
	return out
}
