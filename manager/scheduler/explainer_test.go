package scheduler_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// TestExplainer_AsksAboutARunningTaskAsIfItDidNotRun: its own node has room for it, others are as full as they are, and the tasks asked
// about one after the other don't disturb each other.
func TestExplainer_AsksAboutARunningTaskAsIfItDidNotRun(t *testing.T) {
	s := storetest.New(t)
	tasks := []*api.Task{
		parseTask("a", map[string]string{"node": "n1", "state": "running", "memory": "10"}),
		parseTask("b", map[string]string{"node": "n2", "state": "running", "memory": "10"}),
		parseTask("c", map[string]string{"memory": "10"}),
	}
	storetest.Create(t, s, parseNode("n1", map[string]string{"memory": "10"}), parseNode("n2", map[string]string{"memory": "15"}),
		tasks[0], tasks[1], tasks[2])
	before := proto.CloneOf(tasks[0])
	explainer := scheduler.NewExplainer()
	err := s.View(func(tx store.ReadTx) error {
		placings, err := explainer.Explain(t.Context(), tx, tasks)
		if err != nil {
			return err
		}
		for i, want := range []string{"n1 !n2", "n2 !n1", "!n1 !n2 | free"} {
			var got []string
			for _, n := range placings[i].GetNodes() {
				refused := map[bool]string{true: "!"}[len(n.GetRefusals()) > 0]
				got = append(got, refused+n.GetNodeId())
			}
			if changes := placings[i].GetChanges(); len(changes) > 0 {
				first, _, _ := strings.Cut(changes[0].GetText(), " ")
				got = append(got, "|", first)
			}
			if text := strings.Join(got, " "); text != want {
				t.Errorf("task %s: got %q, want %q", tasks[i].GetId(), text, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, tasks[0]) {
		t.Error("a task that was asked about was changed")
	}
}
