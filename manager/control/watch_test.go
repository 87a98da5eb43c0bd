package control_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/storetest"
)

// slowWatch is the stream of a service whose every message takes a while to make and to send, as that of one with very many tasks does.
type slowWatch struct {
	grpc.ServerStream
	ctx  context.Context
	each time.Duration
	sent []int // how many tasks each message had
}

func (w *slowWatch) Context() context.Context { return w.ctx }

func (w *slowWatch) Send(r *api.WatchServiceResponse) error {
	w.sent = append(w.sent, len(r.GetTasks()))
	time.Sleep(w.each)
	return nil
}

func TestWatchService_SendsALargeServiceLessOften(t *testing.T) {
	const tasks, every = 40, 10 * time.Millisecond
	for what, c := range map[string]struct {
		each        time.Duration
		least, most int
	}{
		"a small one with each change":     {0, tasks, tasks + 1},
		"a large one, a fifth of the time": {20 * time.Millisecond, 3, 7},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwarm(t)
				service := s.createService(t, web())
				ctx, cancel := context.WithCancel(t.Context())
				w := &slowWatch{ctx: ctx, each: c.each}
				done := make(chan error, 1)
				go func() { done <- s.server.WatchService(&api.WatchServiceRequest{ServiceId: service.GetId()}, w) }()
				for i := range tasks {
					time.Sleep(every)
					storetest.Create(t, s.store, &api.Task{Id: fmt.Sprint(i), ServiceId: service.GetId()})
				}
				time.Sleep(time.Second)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if n := len(w.sent); n < c.least || n > c.most || w.sent[n-1] != tasks {
					t.Errorf("%d messages, with so many tasks: %v", n, w.sent)
				}
			})
		})
	}
}
