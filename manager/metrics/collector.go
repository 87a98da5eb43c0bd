package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// Collector is a prometheus.Collector of a store. Make one with New.
type Collector struct {
	store                                             *store.Store
	leader, term, committed, applied                  *prometheus.Desc
	members, reachable, objects, tasks, nodes, failed *prometheus.Desc
}

// New returns a Collector.
func New(s *store.Store) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("skep_"+name, help, labels, nil)
	}
	return &Collector{
		store:     s,
		leader:    desc("raft_is_leader", "1 if this manager leads."),
		term:      desc("raft_term", "The Raft term."),
		committed: desc("raft_committed_index", "The last log entry that this manager knows to be on a majority."),
		applied:   desc("raft_applied_entries_total", "Log entries that this manager has applied since the swarm began, the index of the last one."),
		members:   desc("raft_members", "Managers in the Raft group."),
		reachable: desc("raft_reachable_members", "Managers that were heard of lately; on the leader only."),
		objects:   desc("store_objects", "Objects in the store, by their kind.", "kind"),
		tasks:     desc("swarm_tasks", "Tasks of the swarm by their state; on the leader only.", "state"),
		nodes:     desc("swarm_nodes", "Nodes of the swarm by their state; on the leader only.", "state"),
		failed:    desc("store_scrape_error", "1 if the store could not be read, so that something is missing."),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.leader, c.term, c.committed, c.applied, c.members, c.reachable, c.objects, c.tasks, c.nodes, c.failed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	status := c.store.Status()
	gauge(c.leader, number(status.Self))
	gauge(c.term, float64(status.Term))
	gauge(c.committed, float64(status.Committed))
	ch <- prometheus.MustNewConstMetric(c.applied, prometheus.CounterValue, float64(status.Applied))
	gauge(c.members, float64(len(status.Members)))
	if status.Self {
		reachable := 0
		for _, m := range status.Members {
			if m.Reachable {
				reachable++
			}
		}
		gauge(c.reachable, float64(reachable))
	}
	found, err := c.count()
	gauge(c.failed, number(err != nil))
	if err != nil {
		return
	}
	for kind, n := range found.objects {
		gauge(c.objects, float64(n), kind)
	}
	if !status.Self {
		return
	}
	eachState(api.TaskState_name, "TASK_STATE_", func(state int32, name string) {
		if api.TaskState(state) != api.TaskState_TASK_STATE_REMOVE { // no task is ever in it
			gauge(c.tasks, float64(found.tasks[api.TaskState(state)]), name)
		}
	})
	eachState(api.NodeState_name, "NODE_STATE_", func(state int32, name string) {
		gauge(c.nodes, float64(found.nodes[api.NodeState(state)]), name)
	})
}

func number(claim bool) float64 {
	if claim {
		return 1
	}
	return 0
}

// eachState calls fn with the states of an enum but the unspecified one, and their names in lower case.
func eachState(names map[int32]string, prefix string, fn func(state int32, name string)) {
	for state, name := range names {
		if state != 0 {
			fn(state, strings.ToLower(strings.TrimPrefix(name, prefix)))
		}
	}
}

// counts are how many objects the store has.
type counts struct {
	objects map[string]int
	tasks   map[api.TaskState]int
	nodes   map[api.NodeState]int
}

func (c *Collector) count() (counts, error) {
	out := counts{objects: map[string]int{}, tasks: map[api.TaskState]int{}, nodes: map[api.NodeState]int{}}
	err := c.store.View(func(tx store.ReadTx) error {
		tasks, err := store.All[*api.Task](tx)
		if err != nil {
			return err
		}
		for t := range tasks {
			out.tasks[t.GetStatus().GetState()]++
			out.objects["task"]++
		}
		nodes, err := store.All[*api.Node](tx)
		if err != nil {
			return err
		}
		for n := range nodes {
			out.nodes[n.GetStatus().GetState()]++
			out.objects["node"]++
		}
		for kind, count := range map[string]func(store.ReadTx) (int, error){
			"service": size[*api.Service], "secret": size[*api.Secret], "user": size[*api.User], "grant": size[*api.Grant],
			"config": size[*api.Config], "old_value": size[*api.OldValue], "service_revision": size[*api.ServiceRevision],
			"join_grant": size[*api.JoinGrant], "audit_segment": size[*api.AuditSegment],
		} {
			if out.objects[kind], err = count(tx); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// size counts the objects of a kind.
func size[T store.Object](tx store.ReadTx) (n int, err error) {
	all, err := store.All[T](tx)
	if err != nil {
		return 0, err
	}
	for range all {
		n++
	}
	return n, nil
}
