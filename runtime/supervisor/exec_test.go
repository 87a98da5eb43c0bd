package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
)

// waiter starts a container whose first process waits.
func (n *node) waiter(id string) client.State {
	n.Helper()
	s := n.begin(n.request(id, "wait"))
	n.awaitLine(id, "waiting")
	return s
}

// exec starts a process of the inside program, which is killed at the end of the test.
func (n *node) exec(id string, r client.ExecRequest, args ...string) *client.Exec {
	n.Helper()
	r.Args = append([]string{"/inside"}, args...)
	e, err := n.Exec(n.Context(), id, r)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(e.Close)
	return e
}

// ended gives the exit code and both outputs.
func (n *node) ended(e *client.Exec) (code int, stdout, stderr string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	out, err := io.ReadAll(e.Stdout)
	if err != nil {
		n.Fatal(err)
	}
	errs, err := io.ReadAll(e.Stderr)
	if err != nil {
		n.Fatal(err)
	}
	code, err = e.Wait(ctx)
	if err != nil {
		n.Fatal(err)
	}
	return code, string(out), string(errs)
}

// isolated compares what a process of an exec sees with the container's first process.
func (n *node) isolated(id string, first int) {
	n.Helper()
	e := n.exec(id, client.ExecRequest{}, "look")
	code, text, stderr := n.ended(e)
	if code != 0 {
		n.Fatalf("code %d, %s%s", code, text, stderr)
	}
	got := decode[look](n, text)
	for ns, link := range got.Namespaces {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first, ns))
		if err != nil || link != want {
			n.Errorf("%s namespace is %s, that of the first process %s, %v", ns, link, want, err)
		}
	}
	if len(got.Namespaces) != 7 {
		n.Errorf("namespaces %v", got.Namespaces)
	}
	for key, want := range map[string]string{
		"CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "CapPrm": "00000000a80425fb",
		"CapInh": "0000000000000000", "CapAmb": "0000000000000000", "Seccomp": "2", "Seccomp_filters": "1",
		"NoNewPrivs": "1", "PPid": "0", "Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0", "Groups": "", "SigIgn": "0000000000000000",
		"SigBlk": "0000000000000000",
	} {
		if got.Status[key] != want {
			n.Errorf("%s is %q, want %q", key, got.Status[key], want)
		}
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, got.FDs); diff != "" {
		n.Errorf("descriptors (-want +got):\n%s", diff)
	}
	if got.Hostname != "h-"+id || got.Cwd != "/" || got.Stdin != "/dev/null" || !strings.HasPrefix(got.Stdout, "pipe:") {
		n.Errorf("hostname %q, cwd %q, stdin %q, stdout %q", got.Hostname, got.Cwd, got.Stdin, got.Stdout)
	}
	if !strings.Contains(got.Limits, "Max core file size        0                    0") {
		n.Errorf("limits:\n%s", got.Limits)
	}
	for line := range strings.Lines(got.Cgroup) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/") && !strings.HasSuffix(strings.TrimSpace(line), ":/..") {
			n.Errorf("a path of the host's control groups: %s", line)
		}
	}
}

func (n *node) file(format string, args ...any) string {
	n.Helper()
	text, err := os.ReadFile(fmt.Sprintf(format, args...))
	if err != nil {
		n.Fatal(err)
	}
	return string(text)
}

func TestExec_HasWhatTheFirstProcessHas(t *testing.T) {
	n := newNode(t)
	first := n.waiter("c").Pid
	n.isolated("c", first)
	e := n.exec("c", client.ExecRequest{}, "wait")
	for _, name := range []string{"cgroup", "oom_score_adj", "uid_map"} {
		if diff := cmp.Diff(n.file("/proc/%d/%s", first, name), n.file("/proc/%d/%s", e.Pid, name)); diff != "" {
			t.Errorf("%s (-first +exec):\n%s", name, diff)
		}
	}
}

func TestExec_MayNotDoWhatTheContainerMayNot(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	_, text, _ := n.ended(n.exec("c", client.ExecRequest{}, "try"))
	got := decode[map[string]string](t, text)
	for _, what := range []string{"mount", "unshare user", "mknod", "bpf", "keyctl", "proc sys", "rootfs write", "sethostname"} {
		if got[what] == "ok" || got[what] == "" {
			t.Errorf("%s: %q", what, got[what])
		}
	}
}

func TestExec_AfterTheSupervisorWasRestarted(t *testing.T) {
	n := newNode(t)
	first := n.waiter("c").Pid
	n.end()
	n.run()
	n.isolated("c", first)
}

func TestExec_UserEnvironmentDirectory(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "wait")
	r.Spec.Process.Env = []string{"PATH=/bin", "A=of the container", "B=of the container"}
	n.begin(r)
	_, text, _ := n.ended(n.exec("c", client.ExecRequest{
		Env: []string{"B=of the exec", "C=new"}, Cwd: "/tmp", User: &specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}},
	}, "look"))
	got := decode[look](t, text)
	if diff := cmp.Diff([]string{"PATH=/bin", "A=of the container", "B=of the exec", "C=new"}, got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"Uid": "7\t7\t7\t7", "Gid": "8\t8\t8\t8", "Groups": "9", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
	} {
		if got.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Status[key], want)
		}
	}
	if got.Cwd != "/tmp" {
		t.Errorf("directory %s", got.Cwd)
	}
	_, text, _ = n.ended(n.exec("c", client.ExecRequest{User: &specs.User{UID: 7}}, "reopen"))
	if text != "reopened\n" {
		t.Errorf("opening /dev/stdout again: %q", text)
	}
}

func TestExec_Pipes(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	e := n.exec("c", client.ExecRequest{Stdin: true}, "cat")
	if _, err := e.Stdin.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	e.Stdin.Close()
	if code, out, errs := n.ended(e); code != 0 || out != "through" || errs != "through" {
		t.Errorf("code %d, output %q, errors %q", code, out, errs)
	}
	if code, out, _ := n.ended(n.exec("c", client.ExecRequest{}, "cat")); code != 0 || out != "" {
		t.Errorf("without input: code %d, output %q", code, out)
	}
}

func TestExec_ExitCodesAndSignals(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	if code, _, _ := n.ended(n.exec("c", client.ExecRequest{}, "exit", "41")); code != 41 {
		t.Errorf("code %d, want 41", code)
	}
	e := n.exec("c", client.ExecRequest{}, "wait")
	if line, err := bufio.NewReader(e.Stdout).ReadString('\n'); line != "waiting\n" {
		t.Fatal(line, err)
	}
	if err := e.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := n.ended(e); code != 7 {
		t.Errorf("after SIGTERM: code %d, want 7", code)
	}
	e = n.exec("c", client.ExecRequest{}, "wait")
	if err := e.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := n.ended(e); code != 137 {
		t.Errorf("after SIGKILL: code %d, want 137", code)
	}
	if s, err := n.State(t.Context(), "c"); err != nil || s.Status != client.Running {
		t.Errorf("the container is %+v, %v", s, err)
	}
}

func TestExec_Refuses(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	if _, err := n.Create(t.Context(), n.request("created", "wait")); err != nil {
		t.Fatal(err)
	}
	n.complete(n.request("exited", "exit", "0"))
	for _, c := range []struct {
		id   string
		r    client.ExecRequest
		want error
	}{
		{"nobody", client.ExecRequest{Args: []string{"/inside"}}, client.ErrNotFound},
		{"created", client.ExecRequest{Args: []string{"/inside"}}, client.ErrState},
		{"exited", client.ExecRequest{Args: []string{"/inside"}}, client.ErrState},
		{"c", client.ExecRequest{}, client.ErrInvalid},
		{"c", client.ExecRequest{Args: []string{"/nothing"}}, client.ErrNoProgram},
		{"c", client.ExecRequest{Args: []string{"nothing"}}, client.ErrNoProgram},
		{"c", client.ExecRequest{Args: []string{"/tmp"}}, client.ErrStart},
		{"c", client.ExecRequest{Args: []string{"/inside"}, Cwd: "/nothing"}, client.ErrNoProgram},
		{"c", client.ExecRequest{Args: []string{"/inside"}, Cwd: "relative"}, client.ErrInvalid},
		{"c", client.ExecRequest{Args: []string{"/inside"}, Env: []string{"nothing"}}, client.ErrInvalid},
		{"c", client.ExecRequest{Args: []string{"/inside"}, User: &specs.User{UID: 70000}}, client.ErrInvalid},
	} {
		if e, err := n.Exec(t.Context(), c.id, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s %+v: %v %v, want %v", c.id, c.r, e, err, c.want)
		}
	}
}

func TestExec_ADirectoryThatLeadsOutLeadsNowhere(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	// CVE-2024-21626: a directory that is a descriptor of the runtime.
	for fd := range 32 {
		_, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/inside"}, Cwd: fmt.Sprintf("/proc/self/fd/%d", fd)})
		if err == nil {
			t.Errorf("descriptor %d was a directory", fd)
		}
	}
}

// gone waits until no process has the number.
func (n *node) gone(pid int) {
	n.Helper()
	n.until(fmt.Sprintf("process %d gone", pid), func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

func TestExec_EndsWithItsClient(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	e := n.exec("c", client.ExecRequest{}, "wait")
	e.Close()
	n.gone(e.Pid)
	e = n.exec("c", client.ExecRequest{}, "wait")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	n.gone(e.Pid)
}

func TestExec_EndsWithItsContainer(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	e := n.exec("c", client.ExecRequest{}, "wait")
	if err := n.Kill(t.Context(), "c", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := n.ended(e); code != 137 {
		t.Errorf("code %d", code)
	}
	n.await("c", client.EventExited)
}

func TestExec_Detached(t *testing.T) {
	n := newNode(t)
	s := n.waiter("c")
	e, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/inside", "wait"}, Detach: true})
	if e != nil || err != nil {
		t.Fatal(e, err)
	}
	group := n.procs(s.Pid)
	if len(group) != 2 {
		t.Errorf("processes %v", group)
	}
	if err := n.Kill(t.Context(), "c", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
}

// procs gives the processes in the control group of a process.
func (n *node) procs(pid int) []string {
	n.Helper()
	for line := range strings.Lines(n.file("/proc/%d/cgroup", pid)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if slices.Contains(strings.Split(f[1], ","), "pids") || f[1] == "" {
			dir := "/sys/fs/cgroup/" + strings.Replace(f[1], "name=", "", 1) + f[2]
			if text, err := os.ReadFile(dir + "/cgroup.procs"); err == nil && f[2] != "/" {
				return strings.Fields(string(text))
			}
		}
	}
	n.Fatal("no control group with processes")
	return nil
}

func TestExec_Terminal(t *testing.T) {
	n := newNode(t)
	n.waiter("c")
	for _, user := range []*specs.User{nil, {UID: 7, GID: 7}} {
		e := n.exec("c", client.ExecRequest{Terminal: &client.Size{Rows: 24, Cols: 80}, User: user}, "terminal")
		lines := bufio.NewScanner(e.Terminal)
		next := func() string {
			t.Helper()
			if !lines.Scan() {
				t.Fatal("the terminal ended: ", lines.Err())
			}
			return strings.TrimRight(lines.Text(), "\r")
		}
		if got, want := next(), "/dev/pts/0 -rw--w---- 24x80 controlling true"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := e.Resize(client.Size{Rows: 50, Cols: 132}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Terminal.WriteString("more\n"); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != "more" {
			t.Errorf("echo %q", got)
		}
		if got, want := next(), "/dev/pts/0 -rw--w---- 50x132 controlling true"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, err := e.Terminal.Write([]byte{4}); err != nil { // ^D
			t.Fatal(err)
		}
		if code, err := e.Wait(t.Context()); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
		e.Close()
	}
}
