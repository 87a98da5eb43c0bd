package supervisor_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
)

// TestAttack_OverwriteTheRuntime is CVE-2019-5736 from inside a container: an interpreter line has the runtime's own
// program run there when somebody executes a command, the container's first process takes hold of it by /proc/PID/exe,
// and writes to it once nothing runs it any more. The control is a supervisor that does not run from a sealed copy, and
// whose file the container's root may write to, as the host's root may where there is no user namespace.
func TestAttack_OverwriteTheRuntime(t *testing.T) {
	for _, tc := range []struct {
		program, word, want string
		changed             bool
	}{
		{"skep-runtime", "memfd:skep-runtime", "overwrite: operation not permitted", false},
		{"unsealed", "/unsealed", "overwrite: ok", true},
	} {
		t.Run(tc.program, func(t *testing.T) {
			n := prepare(t)
			n.arm(0o755)
			program := filepath.Join(t.TempDir(), tc.program)
			text, err := os.ReadFile(filepath.Join(programs, tc.program))
			if err == nil {
				err = errors.Join(os.WriteFile(program, text, 0o777), os.Chmod(program, 0o777),
					os.WriteFile(n.layer+"/script", []byte("#!/proc/self/exe\n"), 0o755))
			}
			if err != nil {
				t.Fatal(err)
			}
			p := spawnProgram(n, program)
			r := n.attack("c", "overwrite", tc.word)
			r.Spec.Linux.Seccomp = nil // nor Landlock, which keeps processes from looking at those of other commands
			n.begin(r)
			n.awaitLine("c", "ready")
			n.until("the program held", func() bool {
				// It prints how it is used, and ends.
				if _, err := n.Exec(t.Context(), "c", client.ExecRequest{Detach: true, Args: []string{"/script"}}); err != nil {
					t.Fatal(err)
				}
				return strings.Contains(n.output("c", "stdout"), "held")
			})
			p.stop(syscall.SIGTERM) // nothing runs the program any more
			spawn(n)
			n.until("the attack", func() bool { return strings.Contains(n.output("c", "stdout"), "overwrite:") })
			if out := n.output("c", "stdout"); !strings.HasSuffix(out, tc.want+"\n") {
				t.Errorf("the attacker says %q, want %q", out, tc.want)
			}
			now, err := os.ReadFile(program)
			if err != nil || bytes.Equal(now, text) == tc.changed {
				t.Errorf("the program on disk has changed: %v, want %v, %v", !bytes.Equal(now, text), tc.changed, err)
			}
		})
	}
}

// TestAttack_TerminalsAreTheKernels holds that a terminal for a command comes from the container's file system of
// terminals and from nothing that stands in for it: the supervisor would open a file of the attacker's, or one that a
// link of the attacker's leads to (the class of CVE-2025-52565).
func TestAttack_TerminalsAreTheKernels(t *testing.T) {
	for name, fake := range map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, []byte("untouched"), 0o666) },
		"link": func(path string) error { return os.Symlink("/proc/sys/kernel/hostname", path) },
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newAttack(t)
			host, mount := n.shared("/dev/pts")
			if err := fake(host + "/ptmx"); err != nil {
				t.Fatal(err)
			}
			r := n.attack("c", "stubborn")
			r.Spec.Mounts = append(r.Spec.Mounts, mount)
			n.begin(r)
			n.awaitLine("c", "ready")
			e, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/attacker", "ids"}, Terminal: &client.Size{Rows: 1, Cols: 1}})
			if err == nil {
				e.Close()
				t.Error("the attacker's file was taken for a terminal")
			}
			if err := n.KillAll(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
			n.await("c", client.EventExited)
		})
	}
}

// TestAttack_ConsoleIsNoLink holds that the terminal of a container is mounted at /dev/console, and nowhere that a link leads which
// stands there in a volume over /dev: over what is to be read-only, it would give that up (CVE-2025-52565). The control is the same
// volume with a file there.
func TestAttack_ConsoleIsNoLink(t *testing.T) {
	const file = "file"
	for name, put := range map[string]func(path string) error{
		file:         func(path string) error { return os.WriteFile(path, nil, 0o666) },
		"link":       func(path string) error { return os.Symlink("/victim", path) },
		"link below": func(path string) error { return os.Symlink("/proc/sys/kernel/hostname", path) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newAttack(t)
			host, mount := n.shared("/dev")
			if err := errors.Join(put(host+"/console"), os.Mkdir(host+"/pts", 0o755), os.Mkdir(host+"/shm", 0o755), os.Mkdir(host+"/mqueue", 0o755),
				os.WriteFile(n.layer+"/victim", []byte("untouched"), 0o666)); err != nil {
				t.Fatal(err)
			}
			r := n.terminalRequest("c")
			for i, m := range r.Spec.Mounts {
				if m.Destination == "/dev" {
					r.Spec.Mounts[i] = mount
				}
			}
			state, err := n.Create(t.Context(), r)
			if name != file {
				if err == nil || !strings.HasSuffix(err.Error(), "/dev/console: "+unix.ELOOP.Error()) {
					t.Errorf("got %v, want too many links at /dev/console", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", state.Pid))
			if err != nil || strings.Count(string(mounts), " /0 ") != 1 || !strings.Contains(string(mounts), " /0 /dev/console ") {
				t.Errorf("mounts: %v\n%s", err, mounts)
			}
		})
	}
}
