package session_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/internal/disktest"
)

// shows makes a manager show an audit log from now on.
func (m *manager) shows(anchor int, recovery int64, hashes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log, m.anchor, m.recovery = hashes, anchor, recovery
}

// A manager that has not what the node saw gets no session, before and after a restart of the node; any other does (S4).
func TestClient_RefusesARolledBackManager(t *testing.T) {
	for name, test := range map[string]struct {
		anchor   int
		recovery int64
		log      []string
		refused  string // a part of the reason, or empty
		recovers bool
	}{
		"the same":                         {0, 0, []string{"1", "2", "3"}, "", false},
		"more":                             {0, 0, []string{"1", "2", "3", "4"}, "", false},
		"the last one dropped":             {3, 0, []string{"1", "2", "3", "4"}, "", false},
		"what was seen dropped":            {4, 0, []string{"1", "2", "3", "4", "5"}, "", false},
		"less":                             {0, 0, []string{"1", "2"}, "up to entry 2", false},
		"another":                          {0, 0, []string{"1", "2", "x"}, "up to entry 3", false},
		"another and more":                 {0, 0, []string{"1", "2", "x", "y"}, "up to entry 4", false},
		"less, and all before dropped":     {1, 0, []string{"1", "2"}, "up to entry 2", false},
		"none":                             {0, 0, nil, "up to no entry", false},
		"less, on purpose":                 {0, 7, []string{"1", "r"}, "", true},
		"another, on purpose":              {0, 7, []string{"1", "r", "x"}, "", true},
		"more, recovered and nothing lost": {0, 7, []string{"1", "2", "3", "r"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				c := newCluster(t, "a:1")
				defer c.close()
				a := c.managers["a:1"]
				a.shows(0, 0, "1", "2")
				client, stop := c.runIn(dir, "a:1")
				after(time.Second)
				a.shows(0, 0, "1", "2", "3") // heard by a heartbeat
				after(2 * period)
				if seen := client.Audit().Seen; seen.Sequence != 3 || string(seen.Hash) != "3" {
					t.Fatalf("seen %v", seen)
				}
				check := func(when string) {
					t.Helper()
					state := client.Audit()
					if (state.Refused != nil) != (test.refused != "") || state.Refused != nil && !strings.Contains(state.Refused.Error(), test.refused) {
						t.Errorf("%s: refused %v", when, state.Refused)
					}
					if r := state.Recovered; (r != nil) != test.recovers || r != nil && (r.Before.Sequence != 3 || r.At() != time.Unix(0, 7)) {
						t.Errorf("%s: recovered %v", when, r)
					}
					if test.refused == "" && state.Seen.Sequence != uint64(len(test.log)) || test.refused != "" && state.Seen.Sequence != 3 {
						t.Errorf("%s: seen %v", when, state.Seen)
					}
				}
				a.shows(test.anchor, test.recovery, test.log...)
				after(2 * period)
				check("in a session")
				stop()
				c.noted()
				client, stop = c.runIn(dir, "a:1")
				defer stop()
				after(time.Minute)
				check("after a restart")
				if begun := strings.Contains(fmt.Sprint(c.noted()), "registered"); begun == (test.refused != "") {
					t.Errorf("a session begun: %v", begun)
				}
			})
		})
	}
}

// The others go on: a node that finds one manager rolled back uses another.
func TestClient_UsesAManagerThatWasNotRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := newCluster(t, "a:1", "b:1")
		defer c.close()
		c.managers["a:1"].shows(0, 0, "1", "2", "3")
		c.managers["b:1"].shows(0, 0, "1", "2", "3")
		_, stop := c.runIn(dir, "a:1", "b:1")
		after(time.Second)
		stop()
		c.noted()
		c.managers["a:1"].shows(0, 0, "1")
		for range 5 {
			client, stop := c.runIn(dir, "a:1", "b:1")
			after(5 * time.Second)
			if events := fmt.Sprint(c.noted()); !strings.Contains(events, "registered b:1") || strings.Contains(events, "registered a:1") {
				t.Errorf("events %s", events)
			}
			if client.Audit().Refused != nil {
				t.Error("a node in a session says that it refuses its manager")
			}
			stop()
		}
	})
}

// A disk may not finish writing for minutes: the node still says that it lives, and what it saw is written when the disk goes on (S5).
func TestClient_HeartbeatsDoNotWaitForTheDisk(t *testing.T) {
	disk := disktest.New(t)
	c := newCluster(t, "a:1")
	defer c.close()
	a := c.managers["a:1"]
	a.every = 100 * time.Millisecond
	_, stop := c.runIn(disk.Dir, "a:1")
	thaw := disk.Freeze()
	var entries []string
	seen := func(sequence uint64) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.saw >= sequence
	}
	for sequence := range uint64(5) {
		entries = append(entries, fmt.Sprint(sequence))
		a.shows(0, 0, entries...)
		for !seen(sequence) {
			select {
			case <-a.beaten:
			case <-time.After(10 * time.Second):
				t.Fatalf("no heartbeat that names entry %d while the disk does not answer", sequence)
			}
		}
	}
	thaw()
	stop()
	again, stop := c.runIn(disk.Dir, "a:1")
	defer stop()
	if seen := again.Audit().Seen; seen.Sequence < 4 {
		t.Errorf("after a restart the node knows of %v", seen)
	}
}

// What was remembered and can't be read is no reason to stand still.
func TestNew_GoesOnWithoutWhatWasRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "audit.json"), []byte(`{"version":9}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newCluster(t, "a:1")
		defer c.close()
		c.managers["a:1"].shows(0, 0, "1", "2")
		client, stop := c.runIn(dir, "a:1")
		defer stop()
		after(time.Second)
		if seen := client.Audit().Seen; seen.Sequence != 2 {
			t.Errorf("seen %v", seen)
		}
	})
}

func TestRollbackError_NamesTheManagerAndBothHeads(t *testing.T) {
	err := &session.RollbackError{
		Manager: "10.0.0.1:2377", Seen: session.AuditHead{Sequence: 100, Hash: []byte{0xaa, 0xbb}}, Shown: session.AuditHead{Sequence: 50, Hash: []byte{0xcc}},
	}
	for _, part := range []string{"manager 10.0.0.1:2377", "entry 100 (hash aabb…)", "entry 50 (hash cc…)", "skep swarm rejoin", "--force-new-cluster"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}
