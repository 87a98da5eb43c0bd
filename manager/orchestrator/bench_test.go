package orchestrator_test

import (
	"fmt"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// BenchmarkLoops measures what the leader's loops need from a service's creation until all its tasks have nodes, without Raft.
func BenchmarkLoops(b *testing.B) {
	for _, replicas := range []uint64{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := storetest.New(b)
				for i := range 100 {
					storetest.Create(b, s, simNode(fmt.Sprint("n", i)))
				}
				stop := startLoops(b, s)
				watch, err := s.Watch(b.Context(), 0, object.KindTask)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				storetest.Create(b, s, simService("s", replicas, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
				for assigned := uint64(0); assigned < replicas; {
					batch, err := watch.Next(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					for _, change := range batch.Changes {
						if change.Object.(*api.Task).GetStatus().GetState() == api.TaskState_TASK_STATE_ASSIGNED {
							assigned++
						}
					}
				}
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
	}
}
