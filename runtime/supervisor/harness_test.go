package supervisor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/logfile/logfiletest"
	"github.com/skep-io/skep/runtime/spec"
	"github.com/skep-io/skep/runtime/supervisor"
)

// programs are built once for all tests: what runs in containers, and the supervisor's own binary.
var programs string

// programsVariable names a directory with those programs, for machines without a Go toolchain, such as test VMs.
const programsVariable = "SKEP_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	programs = os.Getenv(programsVariable)
	if programs == "" {
		dir, err := os.MkdirTemp("", "skep-runtime-test-")
		if err == nil {
			err = build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		programs = dir
	}
	code := m.Run()
	if os.Getenv(programsVariable) == "" {
		os.RemoveAll(programs)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(dir string) error {
	for _, pkg := range []string{"./testdata/inside", "./testdata/attacker", "./testdata/unsealed", "../../cmd/skep-runtime"} {
		c := exec.Command("go", "build", "-o", dir, pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// node is a supervisor in this process, and a client of it.
type node struct {
	testing.TB
	*client.Client
	cfg    supervisor.Config
	layer  string
	events <-chan client.Event
	end    func() // ends the supervisor, not the containers
}

var nodes atomic.Int32

func newNode(t testing.TB) *node {
	t.Helper()
	n := prepare(t)
	n.run()
	return n
}

// prepare makes all but the supervisor. What its containers left is removed when the test ends.
func prepare(t testing.TB) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to launch containers")
	}
	dir := t.TempDir()
	n := &node{TB: t, layer: filepath.Join(dir, "layer"), cfg: supervisor.Config{
		Root: filepath.Join(dir, "root"), Socket: filepath.Join(dir, "s"),
		CgroupParent: fmt.Sprintf("skep-test-%d-%d", os.Getpid(), nodes.Add(1)),
		Runtime:      foreignRuntime,
		Forker:       []string{filepath.Join(programs, "skep-runtime"), "fork"},
		Logger:       slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	n.cfg.Run = filepath.Join("/run/skep-containers", n.cfg.CgroupParent)
	t.Cleanup(func() { os.RemoveAll(n.cfg.Run) })
	for _, p := range []string{"bin", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(n.layer, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(programs, "inside"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.layer, "inside"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.clean)
	return n
}

// clean removes every control group of the node, with what runs in it.
func (n *node) clean() {
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/" + n.cfg.CgroupParent)
	if err != nil {
		n.Error(err)
	}
	for _, dir := range append(dirs, "/sys/fs/cgroup/"+n.cfg.CgroupParent) {
		left, _ := filepath.Glob(dir + "/*/cgroup.procs")
		for _, procs := range left {
			n.Errorf("left behind: %s", filepath.Dir(procs))
			text, _ := os.ReadFile(procs)
			for _, pid := range strings.Fields(string(text)) {
				_ = exec.Command("kill", "-9", pid).Run()
			}
			n.until("control group removed", func() bool { return os.Remove(filepath.Dir(procs)) == nil })
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.Error(err)
		}
	}
}

// patience bounds every wait: far more than anything takes, on an emulated processor too, so that only a hang reaches it.
const patience = 3 * time.Minute

// until waits for something that gives no notice.
func (n *node) until(what string, ok func() bool) {
	n.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			n.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// run starts the supervisor and connects to it.
func (n *node) run() {
	n.Helper()
	ready := make(chan struct{})
	n.cfg.Ready = func() { close(ready) }
	s, err := supervisor.New(n.cfg)
	if err != nil {
		n.Skipf("needs a machine that can run containers: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	n.end = func() {
		if ended {
			return
		}
		ended = true
		n.Close()
		cancel()
		if err := <-done; err != nil {
			n.Errorf("supervisor: %v", err)
		}
		s.Close()
	}
	n.Cleanup(func() { n.deleteAll(); n.end() })
	select {
	case <-ready:
	case err := <-done:
		n.Fatal(err)
	}
	n.connect()
}

func (n *node) connect() {
	n.Helper()
	c, err := client.Dial(n.Context(), n.cfg.Socket)
	if err != nil {
		n.Fatal(err)
	}
	n.Client = c
	n.events, err = c.Events(n.Context())
	if err != nil {
		n.Fatal(err)
	}
}

// deleteAll kills and deletes what a test left.
func (n *node) deleteAll() {
	c, err := client.Dial(context.Background(), n.cfg.Socket)
	if err != nil {
		return // ended by the test
	}
	defer c.Close()
	all, err := c.List(context.Background())
	if err != nil {
		n.Error(err)
	}
	for _, s := range all {
		if s.Status == client.Running {
			if err := c.KillAll(context.Background(), s.ID); err != nil && !errors.Is(err, client.ErrState) {
				n.Error(err)
			}
		}
		n.until("delete "+s.ID, func() bool { return c.Delete(context.Background(), s.ID) == nil })
	}
}

// await gives the first event of a type for a container.
func (n *node) await(id string, t client.EventType) client.State {
	n.Helper()
	limit := time.After(patience)
	for {
		select {
		case e, ok := <-n.events:
			if !ok {
				n.Fatalf("event stream ended before %s of %s", t, id)
			}
			if e.State.ID == id && (e.Type == t || e.Type == client.EventSnapshot && string(e.State.Status) == string(t)) {
				return e.State
			}
		case <-limit:
			n.Fatalf("no event %s of %s within %v", t, id, patience)
		}
	}
}

// request is a container that runs the inside program with args.
func (n *node) request(id string, args ...string) client.Request {
	n.Helper()
	s, err := spec.Default()
	if err != nil {
		n.Fatal(err)
	}
	s.Process.Args = append([]string{"/inside"}, args...)
	s.Hostname = "h-" + id
	return client.Request{
		ID: id, Spec: s, Rootfs: client.Rootfs{Lower: []string{n.layer}, ReadOnly: true},
		Log: client.LogConfig{Path: n.logPath(id)},
	}
}

func (n *node) logPath(id string) string { return filepath.Join(filepath.Dir(n.layer), id+".log") }

// begin creates and starts a container.
func (n *node) begin(r client.Request) client.State {
	n.Helper()
	s, err := n.Create(n.Context(), r)
	if err != nil {
		n.Fatal(err)
	}
	if err := n.Start(n.Context(), r.ID); err != nil {
		n.Fatal(err)
	}
	return s
}

// complete runs a container to its end and gives what it printed to standard output.
func (n *node) complete(r client.Request) (client.State, string) {
	n.Helper()
	n.begin(r)
	state := n.await(r.ID, client.EventExited)
	return state, n.output(r.ID, logfile.Stdout)
}

// output gives what a container printed.
func (n *node) output(id, stream string) string {
	n.Helper()
	r, err := logfile.NewReader(n.logPath(id), logfile.Options{})
	if err != nil {
		n.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	for {
		e, err := r.Next(n.Context())
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			n.Fatal(err)
		}
		if e.Stream == stream {
			out.Write(e.Text)
		}
	}
}

// awaitLine waits until a container has printed a line.
func (n *node) awaitLine(id, want string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	r, err := logfile.NewReader(n.logPath(id), logfile.Options{Follow: true, Watcher: logfiletest.NewWatcher(n)})
	if err != nil {
		n.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if err != nil {
			n.Fatalf("no line %q: %v", want, err)
		}
		if strings.TrimSpace(string(e.Text)) == want {
			return
		}
	}
}

// decode reads what the inside program printed.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// limits sets memory (bytes) and pids.
func limits(s *specs.Spec, memory, pids int64) {
	s.Linux.Resources = &specs.LinuxResources{}
	if memory > 0 {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	}
	if pids > 0 {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	}
}
