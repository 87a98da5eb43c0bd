package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shared makes a directory whose mount events travel, with another mount at sub below it.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, at := range []string{dir, filepath.Join(dir, "sub")} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		memory(t, at)
		if err := unix.Mount("", at, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// memory mounts a file system in memory until the test ends.
func memory(t *testing.T, at string) {
	t.Helper()
	if err := unix.Mount("skep-test", at, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// mountOf gives what a process has mounted somewhere, as "ro shared": whether it may be written, and how events travel.
func mountOf(t *testing.T, pid int, at string) string {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for line := range strings.Lines(string(table)) {
		before, _, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if fields[4] != at {
			continue
		}
		found, _, _ = strings.Cut(fields[5], ",")
		for _, tag := range fields[6:] {
			kind, _, _ := strings.Cut(tag, ":")
			found += " " + kind
		}
	}
	return found
}

func TestBind_IsReadOnlyAndSharesMountsAsAskedFor(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct {
		options, top, below string
	}{
		{"bind", "rw", ""},
		{"rbind", "rw", "rw"},
		{"rbind,private", "rw", "rw"},
		{"rbind,ro", "ro", "rw"},
		{"rbind,ro,rro", "ro", "ro"},
		{"rbind,rslave", "rw master", "rw master"},
		{"rbind,ro,rro,slave", "ro master", "ro master"},
		{"rbind,rshared", "rw shared", "rw shared"},
	} {
		t.Run(tt.options, func(t *testing.T) {
			source := shared(t)
			r := n.request("bind-"+strings.ReplaceAll(tt.options, ",", "-"), "wait")
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{
				Destination: "/mnt", Type: "bind", Source: source, Options: strings.Split(tt.options, ","),
			})
			if foreignRuntime != "" && strings.Contains(tt.options, "shared") {
				if _, err := n.Create(t.Context(), r); err == nil {
					t.Error("another runtime can share the container's mounts")
				}
				return
			}
			pid := n.begin(r).Pid
			if got := mountOf(t, pid, "/mnt"); got != tt.top {
				t.Errorf("/mnt is %q, want %q", got, tt.top)
			}
			if got := mountOf(t, pid, "/mnt/sub"); got != tt.below {
				t.Errorf("/mnt/sub is %q, want %q", got, tt.below)
			}
			// What the host mounts now is seen where it was asked for, and nowhere else.
			later := filepath.Join(source, "later")
			if err := os.Mkdir(later, 0o755); err != nil {
				t.Fatal(err)
			}
			memory(t, later)
			if got, want := mountOf(t, pid, "/mnt/later") != "", strings.Contains(tt.top, " "); got != want {
				t.Errorf("what the host mounted later is seen: %v, want %v", got, want)
			}
		})
	}
}
