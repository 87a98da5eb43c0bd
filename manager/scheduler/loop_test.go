package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// start runs a loop until the test ends.
func start(t *testing.T, s *store.Store) {
	t.Helper()
	loop, err := scheduler.New(scheduler.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

func change[T store.Object](t *testing.T, s *store.Store, id string, edit func(T)) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[T](tx, id)
		if err != nil {
			return err
		}
		o := proto.CloneOf(old)
		edit(o)
		return tx.Update(o)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoop_PlacesManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		for i := range 10 {
			storetest.Create(t, s, parseNode(fmt.Sprintf("n%d", i), nil))
		}
		start(t, s)
		var tasks []store.Object
		for i := range 1000 { // more than one transaction takes
			tasks = append(tasks, parseTask(fmt.Sprintf("t%d", i), nil))
		}
		storetest.Create(t, s, tasks...)
		synctest.Wait()
		for i := range 10 {
			if got := len(storetest.List[*api.Task](t, s, store.ByNode(fmt.Sprintf("n%d", i)))); got != 100 {
				t.Errorf("node n%d has %d tasks, want 100", i, got)
			}
		}
	})
}

func TestLoop_SaysWhyAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		storetest.Create(t, s, parseNode("n1", map[string]string{"down": ""}), parseTask("a", nil))
		start(t, s)
		synctest.Wait()
		got := storetest.Get[*api.Task](t, s, "a").GetStatus()
		if want := "no suitable node (1 node not available for new tasks)"; got.GetErr() != want {
			t.Errorf("got reason %q, want %q", got.GetErr(), want)
		}
		change(t, s, "n1", func(n *api.Node) { n.Status.State = api.NodeState_NODE_STATE_READY })
		synctest.Wait()
		task := storetest.Get[*api.Task](t, s, "a")
		if task.GetNodeId() != "n1" || task.GetStatus().GetState() != api.TaskState_TASK_STATE_ASSIGNED || task.GetStatus().GetErr() != "" {
			t.Errorf("got node %q and status %v", task.GetNodeId(), task.GetStatus())
		}
	})
}

// TestLoop_HoldsItsPromisesWhileEverythingChanges: nodes and tasks change while decisions are under way (I13).
func TestLoop_HoldsItsPromisesWhileEverythingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		const nodes, tasks, memory = 4, 60, 20
		for i := range nodes {
			storetest.Create(t, s, parseNode(fmt.Sprintf("n%d", i), map[string]string{"memory": fmt.Sprint(memory)}))
		}
		start(t, s)
		for i := range tasks {
			storetest.Create(t, s, parseTask(fmt.Sprintf("t%d", i), map[string]string{"memory": "5"}))
			change(t, s, fmt.Sprintf("n%d", i%nodes), func(n *api.Node) {
				n.Spec.Availability = api.Availability(1 + i%3)
			})
			change(t, s, fmt.Sprintf("t%d", i), func(t *api.Task) { t.Spec.ForceUpdate++ })
		}
		for i := range nodes {
			change(t, s, fmt.Sprintf("n%d", i), func(n *api.Node) { n.Spec.Availability = api.Availability_AVAILABILITY_ACTIVE })
		}
		synctest.Wait()
		for i := range nodes {
			if got := len(storetest.List[*api.Task](t, s, store.ByNode(fmt.Sprintf("n%d", i)))); got != memory/5 {
				t.Errorf("node n%d has %d tasks, room is for %d", i, got, memory/5)
			}
		}
		for _, task := range storetest.List[*api.Task](t, s) {
			if task.GetNodeId() == "" && !strings.HasPrefix(task.GetStatus().GetErr(), "no suitable node") {
				t.Errorf("task %s waits without a reason: %v", task.GetId(), task.GetStatus())
			}
		}
	})
}
