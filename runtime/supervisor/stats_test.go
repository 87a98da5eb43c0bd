package supervisor_test

import (
	"errors"
	"testing"

	"github.com/skep-io/skep/runtime/client"
)

func TestStats(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "wait")
	limits(r.Spec, 64<<20, 100)
	n.begin(r)
	n.awaitLine("c", "waiting")
	got, err := n.Stats(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	if got.CPU.Usage <= 0 || got.Memory.Usage == 0 || got.Memory.Limit != 64<<20 || got.Pids == 0 || got.PidsLimit != 100 || got.Time.IsZero() {
		t.Errorf("stats %+v", got)
	}
	again, err := n.Stats(t.Context(), "c")
	if err != nil || again.CPU.Usage < got.CPU.Usage || !again.Time.After(got.Time) {
		t.Errorf("stats %+v, %v, after %+v", again, err, got)
	}
	if _, err := n.Stats(t.Context(), "other"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("stats of no container: %v, want ErrNotFound", err)
	}
}
