package orchestrator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func setNode(w *world, id string, state api.NodeState, availability api.Availability) {
	edit(w, id, func(n *api.Node) {
		n.Status = &api.NodeStatus{State: state, ChangedAt: timestamppb.New(time.Now())}
		n.Spec.Availability = availability
	})
}

// TestLoops_LifeOfAGlobalService: nodes come, go, are drained and die, with a change of leaders at every turn.
func TestLoops_LifeOfAGlobalService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		newLeader := func() { stop(); stop = startLoops(t, w.s) }
		const (
			ready, down   = api.NodeState_NODE_STATE_READY, api.NodeState_NODE_STATE_DOWN
			active, drain = api.Availability_AVAILABILITY_ACTIVE, api.Availability_AVAILABILITY_DRAIN
		)
		storetest.Create(t, w.s, simNode("n1"), simNode("n2"), globalService("s", api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		w.expect("created", 2)
		storetest.Create(t, w.s, simNode("n3"))
		w.expect("a node joined", 3)
		newLeader()
		setNode(w, "n2", ready, drain)
		w.expect("a node drained", 2)
		if got := w.runningOn("n2"); len(got) > 0 {
			t.Errorf("tasks %v run on the drained node", got)
		}
		setNode(w, "n2", ready, api.Availability_AVAILABILITY_PAUSE)
		w.expect("it is paused", 2)
		newLeader()
		setNode(w, "n2", ready, active)
		w.expect("it is active again", 3)
		setNode(w, "n2", ready, api.Availability_AVAILABILITY_PAUSE)
		w.expect("it is paused while its task runs", 3)
		setNode(w, "n2", ready, active)

		before := w.runningOn("n3")
		setNode(w, "n3", down, active)
		w.expect("a node is down: its task is still wanted", 3)
		newLeader()
		edit(w, "s", func(s *api.Service) { s.SpecVersion++ })
		for range 10 {
			w.settle()
			time.Sleep(3 * time.Second)
		}
		if got := storetest.Get[*api.Service](t, w.s, "s").GetUpdateStatus().GetState(); got != api.UpdateState_UPDATE_STATE_COMPLETED {
			t.Errorf("the update waits for the node that is down: it is %v", got)
		}
		if got := w.runningOn("n3"); len(got) != 1 || got[0] != before[0] {
			t.Errorf("tasks %v on the node that is down, want %v", got, before)
		}
		setNode(w, "n3", ready, active)
		w.expect("it is back, and updated", 3)
		if got := w.runningOn("n3"); len(got) != 1 || got[0] == before[0] {
			t.Errorf("tasks %v on the node that came back, want a new one", got)
		}
		w.update(func(tx store.Tx) error { return tx.Delete(object.KindNode, "n1") })
		w.expect("a node was removed", 2)
		newLeader()
		w.update(func(tx store.Tx) error { return tx.Delete(object.KindService, "s") })
		w.expect("removed", 0)
	})
}

// TestLoops_GlobalServicesFollowLabels: a node that gets the label that constraints ask for gets a task, and loses it with the label.
func TestLoops_GlobalServicesFollowLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		t.Cleanup(startLoops(t, w.s))
		service := globalService("s", api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		service.Spec.Task.Placement = &api.Placement{Constraints: []string{"node.labels.disk==ssd"}}
		storetest.Create(t, w.s, simNode("n1"), simNode("n2"), service)
		w.expect("no node fits", 0)
		edit(w, "n2", func(n *api.Node) { n.Spec.Annotations = &api.Annotations{Labels: map[string]string{"disk": "ssd"}} })
		w.expect("one does", 1)
		if got := w.runningOn("n2"); len(got) != 1 {
			t.Errorf("tasks %v run on it", got)
		}
		edit(w, "n2", func(n *api.Node) { n.Spec.Annotations = nil })
		w.expect("it does not any more", 0)
	})
}

// TestLoops_GlobalServicesFollowPlatforms: a node that is known not to run the image gets no task that waits for ever.
func TestLoops_GlobalServicesFollowPlatforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		t.Cleanup(startLoops(t, w.s))
		amd := &api.Platform{Os: "linux", Architecture: "amd64"}
		n1, n2 := simNode("n1"), simNode("n2")
		n1.Description = &api.NodeDescription{Platform: amd, Images: []*api.ImageSummary{{Digest: "sha256:a", Platform: amd}}}
		n2.Description = &api.NodeDescription{Platform: &api.Platform{Os: "linux", Architecture: "arm64"}}
		service := globalService("s", api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		service.Spec.Task.Container.Image = "app@sha256:a"
		storetest.Create(t, w.s, n1, n2, service)
		w.expect("created", 1)
		if got := len(all[*api.Task](w)); got != 1 {
			t.Errorf("%d tasks, want one for the node that can run it", got)
		}
		edit(w, "n2", func(n *api.Node) {
			n.Description.Images = []*api.ImageSummary{{Digest: "sha256:a", Platform: n.Description.Platform}}
		})
		w.expect("the image is there for the other platform, too", 2)
	})
}
