package metrics_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/agent/metrics"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// node has tasks and their statistics.
type node struct {
	tasks    map[string]*api.Task
	statuses map[string]*api.TaskStatus
	stats    map[string]*api.TaskStats
	err      error
}

func newNode() *node {
	return &node{tasks: map[string]*api.Task{}, statuses: map[string]*api.TaskStatus{}, stats: map[string]*api.TaskStats{}}
}

func (n *node) task(id, service string, slot uint64, state api.TaskState, created int64, stats *api.TaskStats) {
	n.tasks[id] = &api.Task{Id: id, ServiceName: service, Slot: slot, Meta: &api.Meta{CreatedAt: timestamppb.New(time.Unix(created, 0))}}
	n.statuses[id] = &api.TaskStatus{State: state}
	if stats != nil {
		n.stats[id] = stats
	}
}

func (n *node) collector() *metrics.Collector {
	return metrics.New(metrics.Config{
		Tasks:    func() map[string]*api.Task { return n.tasks },
		Statuses: func() map[string]*api.TaskStatus { return n.statuses },
		Stats: func(_ context.Context, id string) (*api.TaskStats, error) {
			if s := n.stats[id]; s != nil {
				return s, nil
			}
			if n.err != nil {
				return nil, n.err
			}
			return nil, fault.New(fault.NotFound, "no such container")
		},
	})
}

// scrape reads what Prometheus reads.
func scrape(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", response.Status, err, text)
	}
	return string(text)
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

const running = api.TaskState_TASK_STATE_RUNNING

func TestCollect_ShowsWhatTasksUse(t *testing.T) {
	n := newNode()
	n.task("a", "web", 1, running, 1, &api.TaskStats{
		Cpu: &api.CPUStats{
			UsageNanos: 2_500_000_000, UserNanos: 2e9, SystemNanos: 5e8, Periods: 7, ThrottledPeriods: 3, ThrottledNanos: 1e8,
			Pressure: &api.Pressure{Some: &api.Stall{TotalNanos: 3e9}, Full: &api.Stall{TotalNanos: 1e9}},
		},
		Memory:  &api.MemoryStats{UsageBytes: 100, CacheBytes: 30, LimitBytes: 1000, SwapBytes: 5, OomKills: 2},
		Io:      &api.IOStats{ReadBytes: 11, WriteBytes: 12, Reads: 13, Writes: 14},
		Network: &api.NetworkStats{InBytes: 21, InPackets: 22, InDropped: 23, OutBytes: 24, OutPackets: 25, OutDropped: 26},
		Pids:    4, PidsLimit: 50,
	})
	n.task("b", "db", 3, running, 1, &api.TaskStats{Memory: &api.MemoryStats{UsageBytes: 9, CacheBytes: 10}})
	n.task("c", "web", 2, api.TaskState_TASK_STATE_FAILED, 1, nil)
	n.task("d", "web", 4, running, 1, nil) // it has just ended
	c := n.collector()
	c.Launched(3*time.Millisecond, nil)
	c.Launched(time.Second, errors.New("no such program"))
	text := scrape(t, c)
	expect(t, text,
		`skep_task_cpu_usage_seconds_total{service="web",task="web.1"} 2.5`,
		`skep_task_cpu_user_seconds_total{service="web",task="web.1"} 2`,
		`skep_task_cpu_system_seconds_total{service="web",task="web.1"} 0.5`,
		`skep_task_cpu_cfs_periods_total{service="web",task="web.1"} 7`,
		`skep_task_cpu_cfs_throttled_periods_total{service="web",task="web.1"} 3`,
		`skep_task_cpu_cfs_throttled_seconds_total{service="web",task="web.1"} 0.1`,
		`skep_task_memory_usage_bytes{service="web",task="web.1"} 100`,
		`skep_task_memory_working_set_bytes{service="web",task="web.1"} 70`,
		`skep_task_memory_working_set_bytes{service="db",task="db.3"} 0`,
		`skep_task_memory_swap_bytes{service="web",task="web.1"} 5`,
		`skep_task_memory_limit_bytes{service="web",task="web.1"} 1000`,
		`skep_task_oom_events_total{service="web",task="web.1"} 2`,
		`skep_task_threads{service="web",task="web.1"} 4`,
		`skep_task_threads_max{service="web",task="web.1"} 50`,
		`skep_task_fs_reads_bytes_total{service="web",task="web.1"} 11`,
		`skep_task_fs_writes_bytes_total{service="web",task="web.1"} 12`,
		`skep_task_fs_reads_total{service="web",task="web.1"} 13`,
		`skep_task_fs_writes_total{service="web",task="web.1"} 14`,
		`skep_task_network_receive_bytes_total{service="web",task="web.1"} 21`,
		`skep_task_network_receive_packets_dropped_total{service="web",task="web.1"} 23`,
		`skep_task_network_transmit_bytes_total{service="web",task="web.1"} 24`,
		`skep_task_network_transmit_packets_total{service="web",task="web.1"} 25`,
		`skep_task_pressure_cpu_waiting_seconds_total{service="web",task="web.1"} 3`,
		`skep_task_pressure_cpu_stalled_seconds_total{service="web",task="web.1"} 1`,
		`skep_node_tasks{state="running"} 3`, `skep_node_tasks{state="failed"} 1`, `skep_node_tasks{state="pending"} 0`,
		`skep_node_scrape_error 0`,
		`skep_task_launch_duration_seconds_count 1`, `skep_task_launch_duration_seconds_bucket{le="0.004"} 1`,
		`skep_task_launch_failures_total 1`,
	)
	for _, unknown := range []string{
		`skep_task_memory_limit_bytes{service="db"`, `skep_task_threads_max{service="db"`, `skep_task_network_receive_bytes_total{service="db"`,
		`skep_task_pressure_memory`, `task="web.2"`, `task="web.4"`,
	} {
		if strings.Contains(text, unknown) {
			t.Errorf("%s… is there, though it is not known", unknown)
		}
	}
}

// Labels are bounded by the slots of services: an update that has two tasks in one for a moment does not break a scrape.
func TestCollect_ShowsTheNewestTaskOfASlot(t *testing.T) {
	n := newNode()
	n.task("old", "web", 1, running, 1, &api.TaskStats{Pids: 1})
	n.task("new", "web", 1, running, 2, &api.TaskStats{Pids: 2})
	n.task("newer", "web", 1, api.TaskState_TASK_STATE_PREPARING, 3, nil)
	expect(t, scrape(t, n.collector()), `skep_task_threads{service="web",task="web.1"} 2`, `skep_node_tasks{state="preparing"} 1`)
}

func TestCollect_SaysThatSomethingIsMissing(t *testing.T) {
	n := newNode()
	n.task("a", "web", 1, running, 1, &api.TaskStats{Pids: 1})
	n.task("b", "web", 2, running, 1, nil)
	n.err = errors.New("the container supervisor does not answer")
	expect(t, scrape(t, n.collector()), `skep_task_threads{service="web",task="web.1"} 1`, `skep_node_scrape_error 1`)
}
