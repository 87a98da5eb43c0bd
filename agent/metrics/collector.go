package metrics

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// readTimeout bounds the reading of all statistics of one scrape, whose usual bound is 10 s.
	readTimeout = 8 * time.Second
	// maxTasks bounds the tasks of one scrape; a node runs far fewer.
	maxTasks = 8192
)

// Config is what a Collector needs; all fields are required.
type Config struct {
	// Tasks returns the tasks of this node by id, and Statuses how they are. Nothing of it is modified.
	Tasks    func() map[string]*api.Task
	Statuses func() map[string]*api.TaskStatus
	// Stats returns what a task that runs here has used, or an error of the kind fault.NotFound.
	Stats func(ctx context.Context, id string) (*api.TaskStats, error)
}

// Collector is a prometheus.Collector of this node's tasks. Make one with New.
type Collector struct {
	cfg      Config
	families []family
	states   *prometheus.Desc
	failed   *prometheus.Desc
	launches prometheus.Histogram
	failures prometheus.Counter
}

// New returns a Collector that has seen no launch.
func New(cfg Config) *Collector {
	const shortest, factor, buckets = 0.002, 2, 14 // from 2 ms to 16 s
	return &Collector{
		cfg: cfg, families: families(),
		states: prometheus.NewDesc("skep_node_tasks", "Tasks that this node knows, by their state.", []string{"state"}, nil),
		failed: prometheus.NewDesc("skep_node_scrape_error", "1 if statistics of tasks could not be read, so that some are missing.", nil, nil),
		launches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "skep_task_launch_duration_seconds", Help: "Time from the order to start a prepared task to its program's first instruction.",
			Buckets: prometheus.ExponentialBuckets(shortest, factor, buckets),
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skep_task_launch_failures_total", Help: "Prepared tasks whose program could not be started.",
		}),
	}
}

// Launched takes in how long the start of a task took, or that it failed.
func (c *Collector) Launched(took time.Duration, err error) {
	if err != nil {
		c.failures.Inc()
		return
	}
	c.launches.Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families {
		ch <- f.desc
	}
	ch <- c.states
	ch <- c.failed
	c.launches.Describe(ch)
	c.failures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	statuses := c.cfg.Statuses()
	c.collectStates(ch, statuses)
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	failed := 0.0
	for _, t := range shown(c.cfg.Tasks(), statuses) {
		stats, err := c.cfg.Stats(ctx, t.GetId())
		if err != nil {
			if fault.KindOf(err) != fault.NotFound { // it has not just ended
				failed = 1
			}
			continue
		}
		for _, f := range c.families {
			if v, ok := f.value(stats); ok {
				ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, t.GetServiceName(), nameOf(t))
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(c.failed, prometheus.GaugeValue, failed)
	c.launches.Collect(ch)
	c.failures.Collect(ch)
}

func (c *Collector) collectStates(ch chan<- prometheus.Metric, statuses map[string]*api.TaskStatus) {
	count := map[api.TaskState]int{}
	for _, s := range statuses {
		count[s.GetState()]++
	}
	for number, name := range api.TaskState_name {
		state := api.TaskState(number)
		if state == api.TaskState_TASK_STATE_UNSPECIFIED || state == api.TaskState_TASK_STATE_REMOVE { // no task is ever in them
			continue
		}
		label := strings.ToLower(strings.TrimPrefix(name, "TASK_STATE_"))
		ch <- prometheus.MustNewConstMetric(c.states, prometheus.GaugeValue, float64(count[state]), label)
	}
}

// nameOf is the task's place in its service: web.1.
func nameOf(t *api.Task) string { return fmt.Sprintf("%s.%d", t.GetServiceName(), t.GetSlot()) }

// shown returns the tasks that run, the newest of each slot.
func shown(tasks map[string]*api.Task, statuses map[string]*api.TaskStatus) []*api.Task {
	newest := map[string]*api.Task{}
	for id, t := range tasks {
		if statuses[id].GetState() != api.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if have := newest[nameOf(t)]; have == nil || newer(t, have) {
			newest[nameOf(t)] = t
		}
	}
	all := slices.SortedFunc(maps.Values(newest), func(a, b *api.Task) int { return cmp.Compare(nameOf(a), nameOf(b)) })
	return all[:min(len(all), maxTasks)]
}

func newer(a, b *api.Task) bool {
	order := a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime())
	return cmp.Or(order, cmp.Compare(a.GetId(), b.GetId())) > 0
}
