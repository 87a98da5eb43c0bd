package dispatcher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/storetest"
)

func TestHeartbeat_AShorterPeriodCountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"), node("n2"))
		setPeriod := func(d time.Duration) {
			change(t, c.store, "c", func(c *api.Cluster) { c.Spec.DispatcherHeartbeat = durationpb.New(d) })
		}
		setPeriod(time.Hour)
		time.Sleep(time.Minute) // the leader goes by the long period
		c.connect("n1", "m1").mustRegister()
		alive := c.connect("n2", "m1").mustRegister()
		time.Sleep(30 * time.Minute)
		setPeriod(5 * time.Second)
		for range 6 {
			time.Sleep(4 * time.Second)
			if err := alive.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, id := range []string{"n1", "n2"} {
			if got := c.nodeState(id); got != api.NodeState_NODE_STATE_READY {
				t.Errorf("node %s after 24 s: got %v, want READY", id, got)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_DOWN {
			t.Errorf("after 26 s: got %v, want DOWN", got)
		}
		if got := c.nodeState("n2"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("the node that beats: got %v, want READY", got)
		}
	})
}
