package supervisor_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/protocol"
)

func TestLife_ExitCodesAndSignals(t *testing.T) {
	n := newNode(t)
	for i, tc := range []struct {
		args []string
		sig  syscall.Signal
		code int
		by   int
	}{
		{[]string{"exit", "0"}, 0, 0, 0},
		{[]string{"exit", "33"}, 0, 33, 0},
		{[]string{"wait"}, syscall.SIGKILL, 137, 9},
		{[]string{"wait"}, syscall.SIGTERM, 7, 0},
	} {
		id := fmt.Sprint("c", i)
		n.begin(n.request(id, tc.args...))
		if tc.sig != 0 {
			n.awaitLine(id, "waiting")
			if err := n.Kill(t.Context(), id, tc.sig); err != nil {
				t.Fatal(err)
			}
		}
		got := n.await(id, client.EventExited)
		if got.ExitCode != tc.code || got.Signal != tc.by || got.Error != "" || got.Pid != 0 || got.OOMKilled {
			t.Errorf("%v %v: state %+v, want code %d by signal %d", tc.args, tc.sig, got, tc.code, tc.by)
		}
		if got.CreatedAt.After(got.StartedAt) || got.StartedAt.After(got.FinishedAt) || got.CreatedAt.IsZero() {
			t.Errorf("times %v, %v, %v", got.CreatedAt, got.StartedAt, got.FinishedAt)
		}
		if err := n.Kill(t.Context(), id, syscall.SIGTERM); !errors.Is(err, client.ErrState) {
			t.Errorf("Kill after the end: %v, want ErrState", err)
		}
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
		if _, err := n.State(t.Context(), id); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("State after Delete: %v, want ErrNotFound", err)
		}
	}
}

func TestLife_ProgramThatCantRun(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(n.layer+"/text", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		program, want string
		code          int
	}{
		{"/bin/x", "exec /bin/x: no such file or directory", 127},
		{"nothing", "exec nothing: no such file or directory", 127},
		{"/tmp", "exec /tmp: permission denied", 126},
		{"/text", "exec /text: exec format error", 126},
	} {
		r := n.request(fmt.Sprint("c", i))
		r.Spec.Process.Args = []string{tc.program}
		if _, err := n.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		err := n.Start(t.Context(), r.ID)
		if !errors.Is(err, client.ErrStart) || !strings.HasSuffix(err.Error(), tc.want) {
			t.Errorf("Start of %s: %v, want %s", tc.program, err, tc.want)
		}
		if got := n.await(r.ID, client.EventExited); got.ExitCode != tc.code || got.Error != tc.want {
			t.Errorf("%s: state %+v, want code %d and %q", tc.program, got, tc.code, tc.want)
		}
	}
}

func TestLife_WrongStates(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "wait")
	if err := n.Start(t.Context(), "c"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Start of nothing: %v", err)
	}
	if _, err := n.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Create(t.Context(), r); !errors.Is(err, client.ErrExists) {
		t.Errorf("second Create: %v, want ErrExists", err)
	}
	if err := n.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("second Start: %v, want ErrState", err)
	}
	if err := n.Delete(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("Delete while running: %v, want ErrState", err)
	}
	if err := n.Kill(t.Context(), "c", 99); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("Kill with signal 99: %v, want ErrInvalid", err)
	}
	for _, id := range []string{"", "..", "a/b", "-x", strings.Repeat("x", 129)} {
		bad := n.request("c", "wait")
		bad.ID = id
		if _, err := n.Create(t.Context(), bad); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("Create %q: %v, want ErrInvalid", id, err)
		}
	}
}

func TestLife_DeleteWithoutStart(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "wait")
	if _, err := n.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(n.cfg.Run); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLife_FailedCreateLeavesNothing(t *testing.T) { // I6
	n := newNode(t)
	fds := len(openFDs(t))
	for name, edit := range map[string]func(*client.Request){
		"missing layer": func(r *client.Request) { r.Rootfs.Lower = []string{"/nonexistent"} },
		"missing bind": func(r *client.Request) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Type: "bind", Source: "/nonexistent", Destination: "/x"})
		},
		"bad log":         func(r *client.Request) { r.Log.Path = "/nonexistent/log" },
		"bad sysctl":      func(r *client.Request) { r.Spec.Linux.Sysctl = map[string]string{"net.no.such": "1"} },
		"file over image": func(r *client.Request) { r.Files = []client.File{{Dir: "/inside/x", Name: "y"}} },
		"file twice":      func(r *client.Request) { r.Files = []client.File{{Dir: "/x", Name: "y"}, {Dir: "/x", Name: "y"}} },
		"file in proc":    func(r *client.Request) { r.Files = []client.File{{Dir: "/proc", Name: "y"}} },
		"writable root":   func(r *client.Request) { r.Rootfs.ReadOnly = false },
		"little memory":   func(r *client.Request) { limits(r.Spec, 4<<20-1, 0) },
	} {
		r := n.request("c", "look")
		edit(&r)
		if _, err := n.Create(t.Context(), r); err == nil {
			t.Errorf("%s: created", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(n.cfg.Run); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind %v, %v", name, left, err)
		}
		groups, err := filepath.Glob("/sys/fs/cgroup/*/" + n.cfg.CgroupParent + "/c")
		if err != nil || len(groups) != 0 {
			t.Errorf("%s: left behind %v, %v", name, groups, err)
		}
	}
	if now := openFDs(t); len(now) != fds {
		t.Errorf("%d descriptors, before %d: %v", len(now), fds, now)
	}
	if state, _ := n.complete(n.request("c", "exit", "3")); state.ExitCode != 3 {
		t.Errorf("afterwards: %+v", state)
	}
}

// A client that is killed while its container is made has a successor that may have looked for containers already.
func TestLife_CreateWhoseClientIsGoneLeavesNothing(t *testing.T) { // I6
	n := newNode(t)
	conn, err := net.Dial("unix", n.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	r, parts, err := n.request("c", "wait").Detach()
	if err != nil {
		t.Fatal(err)
	}
	err = protocol.Write(conn, protocol.Call{Op: protocol.OpCreate, Request: &r}, parts...)
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventCreated)
	n.await("c", client.EventDeleted)
	if left, err := os.ReadDir(n.cfg.Run); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if state, _ := n.complete(n.request("c", "exit", "3")); state.ExitCode != 3 {
		t.Errorf("afterwards: %+v", state)
	}
}

// Who calls a creation off can delete what comes of it at once.
func TestLife_DeleteWaitsForCreate(t *testing.T) { // I6
	n := newNode(t)
	both := make(chan error, 2)
	for refused := false; !refused; { // one while the other is under way
		for range cap(both) {
			go func() {
				_, err := n.Create(t.Context(), n.request("c", "wait"))
				both <- err
			}()
		}
		first := <-both
		deleted := n.Delete(t.Context(), "c")
		if refused = errors.Is(first, client.ErrExists); refused && deleted != nil {
			t.Errorf("Delete while it is made: %v", deleted)
		}
		for _, err := range []error{first, <-both} {
			if err != nil && !errors.Is(err, client.ErrExists) {
				t.Fatal(err)
			}
		}
		if !refused { // they came one after the other
			_ = n.Delete(t.Context(), "c")
		}
	}
	if left, err := os.ReadDir(n.cfg.Run); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func openFDs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "socket:") {
			out = append(out, to)
		}
	}
	return out
}

func TestLimits_Memory(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "eat", "200")
	limits(r.Spec, 32<<20, 100)
	state, out := n.complete(r)
	if state.ExitCode != 137 || !state.OOMKilled || state.Signal != 9 {
		t.Errorf("state %+v, output %s", state, out)
	}
	// If the supervisor had been killed before its record was written, nothing else would tell the next one.
	legacy, err := filepath.Glob("/sys/fs/cgroup/memory/" + n.cfg.CgroupParent + "/c")
	unified, failed := filepath.Glob("/sys/fs/cgroup/" + n.cfg.CgroupParent + "/c")
	if err := errors.Join(err, failed); err != nil || len(legacy)+len(unified) == 0 {
		t.Errorf("the control group of the container that was killed is gone before it is deleted: %v", err)
	}
	r = n.request("d", "eat", "4")
	limits(r.Spec, 64<<20, 100)
	if state, out := n.complete(r); state.ExitCode != 0 || state.OOMKilled || out != "ate 4\n" {
		t.Errorf("within the limit: state %+v, output %s", state, out)
	}
}

func TestLimits_Pids(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "fork", "40")
	limits(r.Spec, 0, 30)
	state, out := n.complete(r)
	var started int
	if _, err := fmt.Sscanf(out, "started %d", &started); err != nil || started >= 30 {
		t.Errorf("%d processes within a limit of 30; state %+v, output %q", started, state, out)
	}
}

func TestLogs_BothStreamsAndRotation(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "say", "hello", "world")
	if _, out := n.complete(r); out != "hello world\n" || n.output("c", logfile.Stderr) != "to stderr\n" {
		t.Errorf("printed %q and %q", out, n.output("c", logfile.Stderr))
	}
	r = n.request("d", "spam", "5000", "200")
	r.Log.MaxSize, r.Log.MaxFiles = 300000, 3
	_, out := n.complete(r)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if !strings.HasPrefix(lines[len(lines)-1], "line 4999 ") || len(lines) > 4000 || len(lines) < 2000 {
		t.Errorf("%d lines, the last %.20q", len(lines), lines[len(lines)-1])
	}
	files, err := filepath.Glob(n.logPath("d") + "*")
	if diff := cmp.Diff([]string{n.logPath("d"), n.logPath("d") + ".1", n.logPath("d") + ".2"}, files); diff != "" || err != nil {
		t.Errorf("files (-want +got), %v:\n%s", err, diff)
	}
}

func TestWritableLayer(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "try")
	dir := t.TempDir()
	r.Rootfs = client.Rootfs{Lower: []string{n.layer}, Upper: dir + "/upper", Work: dir + "/work"}
	for _, p := range []string{r.Rootfs.Upper, r.Rootfs.Work} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, out := n.complete(r)
	if got := decode[map[string]string](t, out)["rootfs write"]; got != "ok" {
		t.Errorf("write to the root: %s", got)
	}
	st, err := os.Stat(r.Rootfs.Upper + "/written")
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 100000 {
		t.Errorf("written file: %v, %v", st, err)
	}
}

func TestSecrets_AreNowhereOnDisk(t *testing.T) { // I3
	const canary = "canary-4f1d9c"
	n := newNode(t)
	r := n.request("c", "wait")
	r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret(canary)}}
	n.begin(r)
	n.awaitLine("c", "waiting")
	err := filepath.WalkDir(filepath.Dir(n.layer), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(canary)) {
			t.Errorf("%s contains the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
