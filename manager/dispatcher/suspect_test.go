package dispatcher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/storetest"
)

// TestSuspect_OneThatAnswersStaysReadyAndTheOtherIsDown: both have a session at a manager that does not lead.
func TestSuspect_OneThatAnswersStaysReadyAndTheOtherIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"), node("n2"))
		c.connect("n1", "m2").mustRegister()
		alive := c.connect("n2", "m2").mustRegister()
		<-alive.messages
		synctest.Wait()
		c.managers["m2"].Suspect("n2", time.Now()) // it does not lead
		synctest.Wait()
		if storetest.Get[*api.Node](t, c.store, "n2").GetStatus().GetSuspectedAt() != nil {
			t.Error("a manager that does not lead asked")
		}
		for _, id := range []string{"n1", "n2", "n3"} { // n3 is no node
			c.managers["m1"].Suspect(id, time.Now())
		}
		if m := <-alive.messages; m.GetNode().GetStatus().GetSuspectedAt() == nil {
			t.Fatalf("it was told %v", m)
		}
		if err := alive.heartbeat(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("a node that has still time to answer: got %v, want READY", got)
		}
		if storetest.Get[*api.Node](t, c.store, "n2").GetStatus().GetSuspectedAt() != nil {
			t.Error("a node that answered is suspected")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		silent := storetest.Get[*api.Node](t, c.store, "n1").GetStatus()
		if silent.GetState() != api.NodeState_NODE_STATE_DOWN || silent.GetMessage() != "does not answer, and other nodes can't reach it either" ||
			silent.GetSuspectedAt() != nil {
			t.Errorf("the node that did not answer: %v", silent)
		}
		if got := c.nodeState("n2"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("the node that answered: got %v, want READY", got)
		}
	})
}

// TestSuspect_ANewLeaderAsksToo: it does not wait as long for nodes whose machines are known to be gone.
func TestSuspect_ANewLeaderAsksToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"), node("n2"))
		c.connect("n1", "m2").mustRegister()
		c.connect("n2", "m2").mustRegister()
		synctest.Wait()
		c.setSilent("n1")
		c.elect("m2")
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_DOWN {
			t.Errorf("the node whose machine is gone: got %v, want DOWN", got)
		}
		if got := c.nodeState("n2"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("the other: got %v, want READY", got)
		}
	})
}
