package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
)

// TestAttack_ForkBomb holds that a container which starts processes as fast as it can, all deaf to signals, leaves the
// others alone, and ends whole.
func TestAttack_ForkBomb(t *testing.T) {
	n := newAttack(t)
	r := n.attack("bomb", "bomb")
	limits(r.Spec, 128<<20, 64)
	n.begin(r)
	n.awaitLine("bomb", "ready")
	n.until("the bomb at its limit", func() bool { return tasks(t, groupPids(t, n, "bomb")) == 64 })
	if state, out := n.complete(n.request("c", "say", "here")); state.ExitCode != 0 || out != "here\n" {
		t.Errorf("another container meanwhile: %+v, %q", state, out)
	}
	if got, err := n.State(t.Context(), "bomb"); err != nil || got.Status != client.Running {
		t.Fatalf("the bomb: %+v, %v", got, err)
	}
	if threads := tasks(t, groupPids(t, n, "bomb")); threads > 64 {
		t.Errorf("%d threads within a limit of 64", threads)
	}
	if err := n.KillAll(t.Context(), "bomb"); err != nil {
		t.Fatal(err)
	}
	n.await("bomb", client.EventExited)
	if left := groupPids(t, n, "bomb"); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// tasks counts the threads of processes.
func tasks(t *testing.T, pids []string) int {
	t.Helper()
	count := 0
	for _, pid := range pids {
		all, err := os.ReadDir("/proc/" + pid + "/task")
		if err == nil { // else it has ended
			count += len(all)
		}
	}
	return count
}

// TestAttack_MemoryHog holds that files in memory count as memory, wherever the container puts them.
func TestAttack_MemoryHog(t *testing.T) {
	n := newAttack(t)
	n.begin(n.attack("other", "stubborn"))
	n.awaitLine("other", "ready")
	for id, dir := range map[string]string{"heap": "", "shm": "/dev/shm", "dev": "/dev"} {
		r := n.attack(id, "hog", dir)
		limits(r.Spec, 32<<20, 100)
		state, out := n.complete(r)
		if state.ExitCode != 137 || !state.OOMKilled {
			t.Errorf("%s: %+v, %q", id, state, out)
		}
	}
	if got, err := n.State(t.Context(), "other"); err != nil || got.Status != client.Running {
		t.Errorf("another container: %+v, %v", got, err)
	}
	if err := n.KillAll(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	n.await("other", client.EventExited)
}

// TestAttack_FilesInMemoryAreBounded holds that a container without a memory limit can't fill the memory by files: each
// file system has its own limit.
func TestAttack_FilesInMemoryAreBounded(t *testing.T) {
	n := newAttack(t)
	for id, dir := range map[string]string{"shm": "/dev/shm", "dev": "/dev"} {
		state, out := n.complete(n.attack(id, "hog", dir))
		var files int
		if _, err := fmt.Sscanf(out, "wrote %d", &files); err != nil || files > 64 || !strings.Contains(out, unix.ENOSPC.Error()) {
			t.Errorf("%s: %+v, %q, %v; want at most 64 MiB", id, state, out, err)
		}
	}
}

// TestAttack_ZombieStorm holds that children that a container does not wait for stay its own and within its limit, and
// go with it; none becomes the supervisor's.
func TestAttack_ZombieStorm(t *testing.T) {
	n := newAttack(t)
	r := n.attack("c", "zombies", "200")
	limits(r.Spec, 0, 100)
	state := n.begin(r)
	n.until("all children started", func() bool { return strings.HasPrefix(n.output("c", "stdout"), "started ") })
	var started int
	if _, err := fmt.Sscanf(n.output("c", "stdout"), "started %d", &started); err != nil || started >= 100 || started < 20 {
		t.Errorf("%d children within a limit of 100, %v", started, err)
	}
	for _, pid := range groupPids(t, n, "c") {
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		if parent := strings.Fields(string(text))[3]; pid != fmt.Sprint(state.Pid) && parent == fmt.Sprint(os.Getpid()) {
			t.Errorf("process %s is the supervisor's child: %s", pid, text)
		}
	}
	if err := n.Kill(t.Context(), "c", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
	if left := groupPids(t, n, "c"); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
}

// TestAttack_LogFlood holds that what a container prints takes no more disk than its log may, with and without lines.
func TestAttack_LogFlood(t *testing.T) {
	n := newAttack(t)
	for _, kind := range []string{"lines", "no lines"} {
		r := n.attack(strings.ReplaceAll(kind, " ", "-"), "flood", kind)
		r.Log.MaxSize, r.Log.MaxFiles = 1<<20, 3
		n.begin(r)
		worst, last, rotations := int64(0), uint64(0), 0
		n.until("eight rotations", func() bool {
			size, newest := used(t, r.Log.Path)
			worst = max(worst, size)
			if newest != last {
				last, rotations = newest, rotations+1
			}
			return rotations > 8
		})
		if most := r.Log.MaxSize * int64(r.Log.MaxFiles); worst > most {
			t.Errorf("%s: %d bytes on disk, at most %d are allowed", kind, worst, most)
		}
		if state, out := n.complete(n.request(r.ID+"-other", "say", "here")); state.ExitCode != 0 || out != "here\n" {
			t.Errorf("another container meanwhile: %+v, %q", state, out)
		}
		if err := n.KillAll(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		n.await(r.ID, client.EventExited)
	}
}

// used gives the size of a log's files, and what identifies the newest.
func used(t *testing.T, path string) (size int64, newest uint64) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			continue // rotated away
		}
		size += st.Size()
		if f == path {
			newest = st.Sys().(*syscall.Stat_t).Ino
		}
	}
	return size, newest
}
