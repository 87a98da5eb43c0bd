package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/runtime/client"
)

// TestLoad_ManyAtOnce runs containers from several clients at the same time.
func TestLoad_ManyAtOnce(t *testing.T) {
	n := newNode(t)
	const workers, each = 4, 6
	failed := make(chan error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("c%d-%d", w, i)
				r := n.request(id, "exit", fmt.Sprint(w*each+i))
				r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret(id)}}
				_, err := n.Create(t.Context(), r)
				if err == nil {
					err = n.Start(t.Context(), id)
				}
				if err != nil {
					failed <- fmt.Errorf("container %s: %w", id, err) // its exit will never be announced
					return
				}
			}
		})
	}
	want := map[string]int{}
	for w := range workers {
		for i := range each {
			want[fmt.Sprintf("c%d-%d", w, i)] = w*each + i
		}
	}
	got := map[string]int{}
	for len(got) < len(want) {
		select {
		case err := <-failed:
			t.Fatal(err)
		case e, ok := <-n.events:
			if !ok {
				t.Fatal("event stream ended")
			}
			if e.Type == client.EventExited {
				got[e.State.ID] = e.State.ExitCode
			}
		}
	}
	wg.Wait()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exit codes (-want +got):\n%s", diff)
	}
}

// resources counts what a process may leak.
func resources(t *testing.T) map[string]int {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{
		"descriptors": len(openFDs(t)), "mounts": strings.Count(string(mounts), "\n"), "goroutines": runtime.NumGoroutine(),
	}
}

func TestLoad_NothingIsLeftOfDeletedContainers(t *testing.T) { // I15 of the project
	n := newNode(t)
	once := func(i int) {
		id := fmt.Sprint("c", i)
		r := n.request(id, "wait")
		r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret(id)}, {Dir: "/", Name: "x", Single: true}}
		n.begin(r)
		if err := n.KillAll(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		n.await(id, client.EventExited)
		if err := n.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	once(0)
	before := resources(t)
	for i := range 20 {
		once(i + 1)
	}
	n.until("everything given back", func() bool { return cmp.Equal(before, resources(t)) })
}

func TestEvents_BeginWithEverythingAndMissNothing(t *testing.T) {
	n := newNode(t)
	n.begin(n.request("a", "wait"))
	if _, err := n.Create(t.Context(), n.request("b", "wait")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := n.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	next := func() {
		e := <-events
		got = append(got, fmt.Sprintf("%s %s %s", e.Type, e.State.ID, e.State.Status))
	}
	next()
	next()
	next()
	if err := n.Start(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	next()
	if err := n.Kill(t.Context(), "b", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next()
	if err := n.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	next()
	want := []string{
		"snapshot a running", "snapshot b created", "synced  ", "running b running", "exited b exited", "deleted b exited",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	cancel()
	for range events { // closed, since ctx ended
	}
	states, err := n.List(t.Context())
	if err != nil || len(states) != 1 || states[0].ID != "a" {
		t.Errorf("List: %+v, %v", states, err)
	}
}

func TestEvents_OOMKillOfAContainerThatGoesOn(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "eat-child", "200")
	limits(r.Spec, 48<<20, 100)
	n.begin(r)
	if got := n.await("c", client.EventOOM); !got.OOMKilled {
		t.Errorf("state %+v", got)
	}
}
