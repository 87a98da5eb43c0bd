package metrics_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/metrics"
	"github.com/skep-io/skep/store/storetest"
)

func TestCollect_ShowsTheStoreAndTheSwarm(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, &api.Node{Id: "n1", Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY}})
	storetest.Create(t, s, &api.Node{Id: "n2", Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_DOWN}})
	storetest.Create(t, s, &api.Service{Id: "s", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}}})
	for _, id := range []string{"t1", "t2"} {
		storetest.Create(t, s, &api.Task{Id: id, ServiceId: "s", Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}})
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(s))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	want := `
# HELP skep_raft_is_leader 1 if this manager leads.
# TYPE skep_raft_is_leader gauge
skep_raft_is_leader 1
# HELP skep_store_objects Objects in the store, by their kind.
# TYPE skep_store_objects gauge
skep_store_objects{kind="audit_segment"} 0
skep_store_objects{kind="config"} 0
skep_store_objects{kind="grant"} 0
skep_store_objects{kind="join_grant"} 0
skep_store_objects{kind="node"} 2
skep_store_objects{kind="old_value"} 0
skep_store_objects{kind="secret"} 0
skep_store_objects{kind="service"} 1
skep_store_objects{kind="service_revision"} 0
skep_store_objects{kind="task"} 2
skep_store_objects{kind="user"} 0
# HELP skep_store_scrape_error 1 if the store could not be read, so that something is missing.
# TYPE skep_store_scrape_error gauge
skep_store_scrape_error 0
# HELP skep_swarm_nodes Nodes of the swarm by their state; on the leader only.
# TYPE skep_swarm_nodes gauge
skep_swarm_nodes{state="down"} 1
skep_swarm_nodes{state="ready"} 1
skep_swarm_nodes{state="unknown"} 0
`
	err = testutil.GatherAndCompare(registry, strings.NewReader(want), "skep_raft_is_leader", "skep_store_objects", "skep_store_scrape_error", "skep_swarm_nodes")
	if err != nil {
		t.Error(err)
	}
	applied, err := testutil.GatherAndCount(registry, "skep_raft_applied_entries_total", "skep_raft_term", "skep_raft_committed_index", "skep_swarm_tasks")
	const states = 13
	if err != nil || applied != 3+states {
		t.Errorf("%d series, %v; want the index, the term, the last entry, and %d states of tasks", applied, err, states)
	}
}
