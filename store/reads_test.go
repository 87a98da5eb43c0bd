package store

import (
	"log/slog"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// persist lets the disk of a cluster, whose goroutines do not run, do what it was asked for.
func persist(t *testing.T, c *cluster) {
	t.Helper()
	jobs := c.queue
	c.queue = nil
	if err := c.writeJobs(jobs); err != nil {
		t.Fatal(err)
	}
	if err := c.finish(jobs); err != nil {
		t.Fatal(err)
	}
}

// turn is persist, after which everything that is committed is applied.
func turn(t *testing.T, c *cluster) {
	t.Helper()
	persist(t, c)
	if err := c.applyAll(); err != nil {
		t.Fatal(err)
	}
}

// The commit index on disk may be older than what was acknowledged: a manager that leads alone answers a barrier only once it has
// found out, by an entry of its own term.
func TestBarrier_AfterARestartWaitsForWhatWasAcknowledged(t *testing.T) {
	for _, early := range []bool{false, true} {
		c := restarted(t)
		done := make(chan error, 1)
		ask := func() {
			if err := c.read(done); err != nil {
				t.Fatal(err)
			}
		}
		if early {
			ask()
		}
		if err := c.start(); err != nil {
			t.Fatal(err)
		}
		for !c.core.Leader().Self {
			turn(t, c)
		}
		if !early {
			ask()
		}
		for c.readyTerm != c.core.Leader().Term {
			if len(done) > 0 {
				t.Fatalf("asked early %v: answered before the first entry of the term", early)
			}
			turn(t, c)
		}
		if len(done) != 1 {
			t.Errorf("asked early %v: not answered with the first entry of the term", early)
		}
	}
}

// Whoever has been answered may write at once: a leader has said that it leads before it answers the first barrier.
func TestBarrier_IsAnsweredByALeaderThatTakesWrites(t *testing.T) {
	c := restarted(t)
	done := make(chan error, 1)
	if err := c.read(done); err != nil {
		t.Fatal(err)
	}
	told := false
	c.logger = slog.New(slog.NewTextHandler(writer(func() { // what it tells, it logs
		if leadership, _ := c.leadership(); leadership.Self {
			if told = true; len(done) > 0 {
				t.Error("answered before it took writes")
			}
		}
	}), nil))
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	for !told || len(done) == 0 {
		turn(t, c)
	}
}

// writer is called for each write.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// restarted returns the log of a group of one whose goroutines do not run.
func restarted(t *testing.T) *cluster {
	t.Helper()
	mem := vfs.NewMem()
	t.Cleanup(mem.Close)
	disk := Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	if err := Bootstrap(disk, "c1", &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.cluster.wal.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.cluster
}
