package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/skep-io/skep/runtime/client"
)

// TestCrash_TheNextSupervisorPutsEverythingInOrder kills the supervisor at many moments of busy lives of containers.
// After each, the next one knows every container that was announced, what it says of them is true, and what was half
// made is gone.
func TestCrash_TheNextSupervisorPutsEverythingInOrder(t *testing.T) {
	n := prepare(t)
	for round := range 5 {
		p := spawn(n)
		churning, stop := context.WithCancel(t.Context())
		churned := make(chan int, 2)
		for w := range 2 {
			go func() { churned <- churn(churning, n, fmt.Sprintf("r%d-%d", round, w)) }()
		}
		<-time.After(time.Duration(30+25*round) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait() // killed
		stop()
		made := <-churned + <-churned
		p.Client.Close()

		next := spawn(n)
		states, err := n.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for _, s := range states {
			known[s.ID] = true
			_, err := os.Stat(fmt.Sprintf("/proc/%d", s.Pid))
			if alive := err == nil; s.Status == client.Running && !alive {
				n.await(s.ID, client.EventExited)
			}
		}
		dirs, err := filepath.Glob(n.cfg.Root + "/containers/*")
		if err != nil {
			t.Fatal(err)
		}
		groups, err := filepath.Glob("/sys/fs/cgroup/*/" + n.cfg.CgroupParent + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range append(dirs, groups...) {
			st, err := os.Stat(dir)
			if err == nil && st.IsDir() && !known[filepath.Base(dir)] {
				t.Errorf("round %d: %s belongs to no container", round, dir)
			}
		}
		t.Logf("round %d: %d lives completed, %d containers found", round, made, len(states))
		n.deleteAll()
		next.stop(syscall.SIGTERM)
	}
}

// churn lives containers' lives until the supervisor goes, and gives how many it completed.
func churn(ctx context.Context, n *node, prefix string) int {
	c, err := client.Dial(ctx, n.cfg.Socket)
	if err != nil {
		return 0
	}
	defer c.Close()
	for i := 0; ; i++ {
		r := n.request(fmt.Sprintf("%s-%d", prefix, i), "wait")
		if _, err := c.Create(ctx, r); err != nil {
			return i
		}
		if c.Start(ctx, r.ID) != nil || c.KillAll(ctx, r.ID) != nil {
			return i
		}
		for c.Delete(ctx, r.ID) != nil { // until the exit is recorded
			if _, err := c.State(ctx, r.ID); err != nil {
				return i
			}
		}
	}
}
