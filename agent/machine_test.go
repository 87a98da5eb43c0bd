package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vishvananda/netlink"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/agent/identity"
	"github.com/skep-io/skep/agent/images"
	"github.com/skep-io/skep/agent/network"
	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/logfile/logfiletest"
	"github.com/skep-io/skep/runtime/supervisor"
)

const (
	probeImage = "skep.local/probe:1"
	// patience bounds everything that is waited for; nothing takes as long unless it hangs.
	patience = 2 * time.Minute
)

// programsVariable names a directory with the program, for machines without a Go toolchain, such as test VMs.
const programsVariable = "SKEP_TEST_PROGRAMS"

// subnet is that of the containers.
func subnet() netip.Prefix { return netip.MustParsePrefix("10.78.0.0/24") }

// probe builds the program of the tests' image once.
var probe = sync.OnceValues(func() ([]byte, error) {
	if built := os.Getenv(programsVariable); built != "" {
		return os.ReadFile(filepath.Join(built, "probe"))
	}
	dir, err := os.MkdirTemp("", "skep-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-o", binary, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return os.ReadFile(binary)
})

// rootfs returns a tar with the probe and some accounts.
func rootfs(t testing.TB) io.Reader {
	t.Helper()
	binary, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct {
		name string
		mode int64
		data string
	}{
		{"etc/", 0o755, ""},
		{"etc/passwd", 0o644, "root:x:0:0::/:\napp:x:1000:1000::/:\n"},
		{"bin/", 0o755, ""},
		{"bin/probe", 0o755, string(binary)},
		{"tmp/", 0o1777, ""},
	} {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// machine is a node with a real runtime, image store and network, without managers.
type machine struct {
	t       testing.TB
	dir     string
	parent  string
	client  *client.Client
	images  *image.Store
	secrets *secret.Holder
	ca      authority
	exec    *executor.Executor
	net     *network.Network
	// stop ends what the executor needs to run.
	stop func()
}

// newMachine starts a supervisor of its own. It skips when this machine can't.
func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make containers")
	}
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, parent: groupName(), secrets: &secret.Holder{}, ca: newAuthority(t)}
	m.supervise()
	var err error
	if m.client, err = client.Dial(t.Context(), filepath.Join(dir, "sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.client.Close() })
	m.openImages()
	m.open()
	t.Cleanup(m.clean)
	return m
}

// clean removes all containers, as an executor does for those that it doesn't know, and the network.
func (m *machine) clean() {
	m.restart(m.t)
	defer m.stop()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _, err := m.exec.Adopt(ctx, nil)
	if err := errors.Join(err, m.net.Remove()); err != nil {
		m.t.Error(err)
	}
}

// groupName returns the name of a control group for the containers of one test.
func groupName() string { return "skep-test-" + strings.ToLower(rand.Text()[:12]) }

// removeGroups removes the control groups that a supervisor leaves for its next run.
func removeGroups(name string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/" + name} {
		groups, _ := filepath.Glob(pattern)
		for _, g := range groups {
			_ = os.Remove(g)
		}
	}
}

// supervise runs a supervisor until the test ends.
func (m *machine) supervise() {
	m.t.Helper()
	ready := make(chan struct{})
	s, err := supervisor.New(supervisor.Config{
		Root: filepath.Join(m.dir, "runtime"), Socket: filepath.Join(m.dir, "sock"), CgroupParent: m.parent, KillOnExit: true,
		Run:   filepath.Join(m.dir, "run"),
		Ready: func() { close(ready) },
	})
	if err != nil {
		m.t.Fatalf("start a container supervisor: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			m.t.Error(err)
		}
	})
	m.t.Cleanup(func() {
		cancel()
		running.Wait()
		removeGroups(m.parent)
	})
	<-ready
}

func (m *machine) openImages() {
	m.t.Helper()
	store, err := image.Open(filepath.Join(m.dir, "images"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = store.Close() })
	cfg := archive.RootfsConfig{Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, Env: []string{"FROM=image"}}}
	if _, err := store.Import(m.t.Context(), rootfs(m.t), probeImage, cfg); err != nil {
		m.t.Fatal(err)
	}
	m.images = store
}

// acquirer are the machine's images as the executor sees them.
type acquirer struct{ peer *images.Peer }

func (a acquirer) Acquire(ctx context.Context, reference string) (executor.Image, error) {
	img, err := a.peer.Acquire(ctx, reference)
	return executor.Image(img), err
}

type revealer struct{ *secret.Holder }

func (r revealer) Reveal(id string) ([]byte, uint64, bool) {
	v, ok := r.Get(id)
	return v.Reveal(), v.Version(), ok
}

func (r revealer) Absence(string) string { return "" }

// open makes the executor, as a start of the daemon does.
func (m *machine) open() {
	m.t.Helper()
	log := discard()
	var err error
	m.net, err = network.New(network.Config{Dir: filepath.Join(m.dir, "network"), Subnet: subnet()})
	if err != nil {
		m.t.Fatal(err)
	}
	runtime := executor.NewSupervisor(m.client, log)
	locate := func(context.Context, string) ([]*api.ImageHolder, error) {
		return nil, fault.New(fault.Unavailable, "no manager")
	}
	keeper := m.identities()
	m.exec, err = executor.New(executor.Config{
		Dir: filepath.Join(m.dir, "containers"), Runtime: runtime, Network: m.net, Secrets: revealer{m.secrets}, Identities: keeper,
		Images: acquirer{&images.Peer{Store: m.images, Locate: locate, Logger: log}}, NodeID: "n1", Hostname: "host", Logger: log,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = runtime.Run(ctx) })
	running.Go(func() { _ = keeper.Run(ctx) })
	m.stop = func() {
		cancel()
		running.Wait()
		_ = errors.Join(keeper.Close(), m.net.Close())
	}
}

// identities makes the keeper of the tasks' identities, which asks a CA of the machine's own.
func (m *machine) identities() *identity.Keeper {
	m.t.Helper()
	k, err := identity.New(identity.Config{
		Dir: filepath.Join(m.dir, "identity"), ClusterID: m.ca.id, Ask: m.ca.ask,
		Roots: func() ([]*x509.Certificate, <-chan struct{}) {
			return []*x509.Certificate{m.ca.root.Certificate()}, nil
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

// authority is a CA that gives every task the identity of slot 2 of web.
type authority struct {
	id   string
	root *ca.Root
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return authority{catest.NewID(), root}
}

func (a authority) ask(_ context.Context, requests []*api.WorkloadRequest) ([]*api.WorkloadAnswer, error) {
	var out []*api.WorkloadAnswer
	for _, r := range requests {
		chain, err := a.root.IssueWorkload(time.Now(), r.GetCsr(), ca.Workload{ClusterID: a.id, Service: "web", Slot: 2})
		if err != nil {
			return nil, err
		}
		out = append(out, &api.WorkloadAnswer{Certificate: chain})
	}
	return out, nil
}

// restart ends the executor and makes a new one over the same containers.
func (m *machine) restart(testing.TB) task.Executor {
	m.stop()
	m.open()
	return m.exec
}

// ready waits until a task printed "ready".
func (m *machine) ready(t *testing.T, id string) {
	t.Helper()
	m.output(t, id, "ready")
}

// output waits until a task printed a line that contains text, and returns all until then; "" waits for the task's end.
func (m *machine) output(t *testing.T, id, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path, err := m.exec.LogPath(id)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	if text == "" {
		close(done)
	}
	r, err := logfile.NewReader(path, logfile.Options{Follow: true, Watcher: logfiletest.NewWatcher(t), Done: done})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out strings.Builder
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatalf("waiting for %q of task %s: %v; it printed %q", text, id, err, out.String())
		}
		out.Write(e.Text)
		if text != "" && strings.Contains(string(e.Text), text) {
			return out.String()
		}
	}
}

// leftovers returns what there is of a task: files, interfaces, containers, cgroups.
func (m *machine) leftovers(t *testing.T, id string) []string {
	t.Helper()
	out, _ := filepath.Glob(filepath.Join(m.dir, "containers", "*"))
	identities, _ := filepath.Glob(filepath.Join(m.dir, "identity", "*"))
	leases, _ := filepath.Glob(filepath.Join(m.dir, "network", "*.json"))
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/" + m.parent + "/" + id + "*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + m.parent + "/" + id + "*")
	out = slices.Concat(out, identities, leases, cgroups, unified)
	states, err := m.client.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		out = append(out, "container "+s.ID)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			out = append(out, "interface "+l.Attrs().Name)
		}
	}
	return out
}

// setLoopbackUp sets up the loopback interface of the tests' network namespace.
func setLoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
