package day

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// follower follows the events of services and nodes, from one manager after the other: each time it goes on where it was.
type follower struct {
	world *world
	name  string
	// stays is how long it stays with a manager, unless that ends.
	stays time.Duration
	stop  func()

	mu     sync.Mutex
	cursor string   // guarded by mu: up to which it has everything, or "" before the first answer
	seen   []string // guarded by mu: what it heard, with cursors
	// created and removed count events, by the name of a service; guarded by mu.
	created, removed map[string]int
}

// follow begins to follow.
func (w *world) follow(name string, stays time.Duration) *follower {
	f := &follower{world: w, name: name, stays: stays, created: map[string]int{}, removed: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { f.run(ctx) })
	f.stop = func() {
		cancel()
		following.Wait()
	}
	return f
}

// follow has two people follow events, from now on: what they heard before is gone, as are events with the memory of all managers.
func (n *nemesis) follow() {
	n.unfollow()
	n.made, n.gone = map[string]int{}, map[string]int{}
	n.followers = []*follower{n.world.follow("one", time.Hour), n.world.follow("another", 3*time.Minute)}
	for _, f := range n.followers {
		n.await(time.Minute, "events", func() string {
			if f.position() == "" {
				return f.name + " hears nothing"
			}
			return ""
		})
	}
}

func (n *nemesis) unfollow() {
	for _, f := range n.followers {
		f.stop()
	}
	n.followers = nil
}

// run goes from manager to manager. One that was started since has not what came before, and says so; not all of them were.
func (f *follower) run(ctx context.Context) {
	forgot := 0
	for i := 0; ctx.Err() == nil; i++ {
		err := f.watch(ctx, f.world.machines[i%managers])
		switch {
		case fault.KindOf(err) == fault.Exhausted:
			forgot++
		case err == nil:
			forgot = 0
		}
		if forgot > 2*managers {
			f.world.violated("no manager has the events after %s any more, which %s has: %v", f.position(), f.name, err)
			return
		}
		_ = pause(ctx, time.Second)
	}
}

// watch follows the events of one manager for a while. The error is why that did not come about.
func (f *follower) watch(ctx context.Context, m *machine) error {
	conn, err := grpc.NewClient("passthrough:///"+m.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(f.world.dialer(m.name)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, f.stays)
	defer cancel()
	stream, err := api.NewEventsClient(conn).WatchEvents(ctx, &api.WatchEventsRequest{
		After: f.position(), Filters: []*api.EventFilter{
			{Key: "type", Values: []string{"service", "node"}},
			{Key: "event", Values: []string{"create", "update", "remove"}}, // who leads each manager learns for itself
		},
	})
	for heard := false; ; heard = true {
		var news *api.WatchEventsResponse
		if err == nil {
			news, err = stream.Recv()
		}
		if err != nil && (heard || errors.Is(ctx.Err(), context.DeadlineExceeded)) {
			return nil
		}
		if err != nil {
			return fault.FromStatus(err)
		}
		f.take(news)
	}
}

func (f *follower) position() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor
}

func (f *follower) take(news *api.WatchEventsResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cursor = news.GetPosition()
	for _, e := range news.GetEvents() {
		name := e.GetAttributes()["name"]
		f.seen = append(f.seen, fmt.Sprintf("%s %s %s %s", e.GetCursor(), e.GetType(), e.GetAction(), name))
		switch {
		case e.GetType() == "node":
			f.world.books.heard(name, e)
		case e.GetAction() == "create":
			f.created[name]++
		case e.GetAction() == "remove":
			f.removed[name]++
		}
	}
}

// missed says what a follower did not hear, or heard twice, of the services that were made and removed.
func (f *follower) missed(made, gone map[string]int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !maps.Equal(f.created, made) || !maps.Equal(f.removed, gone) {
		return fmt.Sprintf("%s heard that services came %v and went %v, and they came %v and went %v", f.name, f.created, f.removed, made, gone)
	}
	return ""
}

// heard is all that a follower heard.
func (f *follower) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// checkEvents: whoever follows events hears of everything once, and all hear the same.
func (n *nemesis) checkEvents() {
	const late = time.Minute
	for _, f := range n.followers {
		n.await(late, "the events of services", func() string { return f.missed(n.made, n.gone) })
	}
	if first, second := n.followers[0].heard(), n.followers[1].heard(); n.intact() && !slices.Equal(first, second) {
		n.violated("two who follow the events heard different ones:\n%v\n%v", first, second)
	}
}
