package orchestrator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/storetest"
)

// TestLoops_RestartsBackOff: each delay is about twice the last, up to the longest, although every leader but one is new and no history is
// kept; and a service that fails for a day is tried some hundred times, not seventeen thousand.
func TestLoops_RestartsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		service := simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		service.Spec.Task.Restart = &api.RestartPolicy{
			Delay: durationpb.New(5 * time.Second), Backoff: api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL, MaxDelay: durationpb.New(5 * time.Minute),
		}
		storetest.Create(t, w.s, simNode("n1"), &api.Cluster{Id: "c", Spec: &api.ClusterSpec{}}, service)
		w.start()
		want := 5 * time.Second
		for try := range 10 {
			if !w.end("s", api.TaskState_TASK_STATE_FAILED) {
				t.Fatalf("try %d: nothing runs", try)
			}
			failed := time.Now()
			stop()
			stop = startLoops(t, w.s)
			for w.start(); len(w.runningOn("n1")) == 0; w.start() {
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(failed); took < want*3/4 || took > want+200*time.Millisecond {
				t.Errorf("try %d: it was started after %v, want up to a quarter less than %v", try, took, want)
			}
			want = min(2*want, 5*time.Minute)
		}
	})
}
