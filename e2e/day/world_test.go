package day

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

const (
	managers = 3
	workers  = 7
	// nodeCPUs and nodeMemory are what each machine has.
	nodeCPUs   = 2_000_000_000
	nodeMemory = 8 << 30
)

// world is a swarm in a bubble: all of it is real but the clock, the network, the managers' disks, and what containers are.
type world struct {
	t        *testing.T
	seed     uint64
	bug      bug
	began    time.Time
	network  *network
	machines []*machine
	books    *books
	images   []*api.ImageSummary
	said     *tail // what daemons logged
	did      *tail // what the nemesis did

	mu     sync.Mutex
	quiet  bool     // guarded by mu: nothing fails by itself
	broken []string // guarded by mu: what did not hold
}

// newWorld makes a swarm of managers and workers that are all ready.
func newWorld(t *testing.T, seed uint64, planted bug) *world {
	t.Helper()
	w := &world{t: t, seed: seed, bug: planted, began: time.Now(), network: newNetwork(), said: &tail{most: 12}, did: &tail{most: 40}}
	w.books = newBooks(w)
	for _, tag := range []string{"app", "crash", "missing", "broken", "job"} {
		w.images = append(w.images, &api.ImageSummary{
			Digest: "sha256:" + strings.Repeat(hex.EncodeToString([]byte(tag[:1])), 32), References: []string{"docker.io/library/day:" + tag},
			SizeBytes: 1 << 20, LoadedAt: timestamppb.New(w.began),
		})
	}
	w.found()
	for i := 2; i <= managers; i++ {
		w.join(fmt.Sprint("m", i), api.Role_ROLE_MANAGER)
	}
	for i := 1; i <= workers; i++ {
		w.join(fmt.Sprint("w", i), api.Role_ROLE_WORKER)
	}
	t.Cleanup(func() {
		for _, m := range slices.Backward(w.machines) {
			w.must(m.stop())
		}
	})
	w.await(time.Minute, "all nodes to be ready", func() string { return w.nodesReady() })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// newMachine makes a machine that is not part of the swarm yet.
func (w *world) newMachine(name string, manages bool) *machine {
	m := &machine{world: w, name: name, manages: manages, local: seal.NewKey(), dir: filepath.Join(w.memory(), name)}
	w.must(os.MkdirAll(m.dir, 0o700))
	m.executor = newExecutor(m, w.seed+uint64(len(w.machines))<<32)
	if manages {
		m.disk = vfs.NewMem()
	}
	w.machines = append(w.machines, m)
	return m
}

// memory is a directory whose files are in memory, if the system has one: agents keep their tasks in files.
func (w *world) memory() string {
	const shared = "/dev/shm"
	if info, err := os.Stat(shared); err != nil || !info.IsDir() {
		return w.t.TempDir()
	}
	dir, err := os.MkdirTemp(shared, "skep-day-")
	w.must(err)
	w.t.Cleanup(func() { w.must(os.RemoveAll(dir)) })
	return dir
}

// found makes the swarm, of one manager.
func (w *world) found() {
	spec := control.DefaultClusterSpec()
	spec.SnapshotInterval = 200 // so that those who come back after a while get one
	founding, err := caserver.Found(time.Now(), caserver.FoundConfig{
		Spec: spec, Hostname: "m1", Availability: api.Availability_AVAILABILITY_ACTIVE,
	})
	w.must(err)
	m := w.newMachine("m1", true)
	m.identity = ca.NewIdentity(founding.Credentials)
	self := &api.Member{RaftId: store.NewRaftID(), NodeId: m.id(), Address: m.address()}
	w.must(store.Bootstrap(m.storeDisk(), founding.Cluster.GetId(), self))
	w.must(m.start())
	w.must(manager.Bootstrap(w.t.Context(), m.manager.store, founding))
	w.books.intend(m.id(), founding.Node.GetSpec())
}

// join makes a new machine a node and runs it.
func (w *world) join(name string, role api.Role) {
	m := w.newMachine(name, role == api.Role_ROLE_MANAGER)
	w.must(w.admit(m, role))
	if m.manages {
		w.joinGroup(m, w.machines[0])
	}
	w.must(m.start())
}

// admit gives a machine the identity of a new node, by a token, as `skep swarm join` does.
func (w *world) admit(m *machine, role api.Role) error {
	var secret token.Token
	err := w.ask(func(ctx context.Context, c api.ControlClient) error {
		answer, err := c.GetJoinToken(ctx, &api.GetJoinTokenRequest{Role: role})
		if err != nil {
			return err
		}
		secret, err = token.Parse(answer.GetToken())
		return err
	})
	if err != nil {
		return err
	}
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		var credentials ca.Credentials
		for _, address := range w.managerAddresses() {
			ctx, cancel := context.WithTimeout(w.t.Context(), aliveTime)
			credentials, err = ca.Join(ctx, ca.JoinConfig{
				Address: address, Token: secret, Hostname: m.name, Availability: api.Availability_AVAILABILITY_ACTIVE, Key: key, Dial: w.dialer(m.name),
			})
			cancel()
			if err == nil {
				m.identity = ca.NewIdentity(credentials)
				w.books.intend(m.id(), &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE})
				return nil
			}
		}
		if time.Since(began) > patience {
			return err
		}
		_ = pause(w.t.Context(), time.Second)
	}
}

// joinGroup makes a machine a member of the Raft group.
func (w *world) joinGroup(m, through *machine) {
	shut := m.serve(nil)
	conn, err := m.dialManager(through.address())
	w.must(err)
	joined, err := api.NewRaftClient(conn).Join(w.t.Context(), &api.JoinRequest{Address: m.address(), NodeId: m.id(), Protocol: store.Protocol})
	w.must(errors.Join(err, conn.Close()))
	shut()
	w.must(store.Prepare(m.storeDisk(), m.identity.ClusterID(), joined))
}

// managerAddresses are where agents begin.
func (w *world) managerAddresses() (addresses []string) {
	for _, m := range w.machines {
		if m.manages {
			addresses = append(addresses, m.address())
		}
	}
	return addresses
}

// names are those of all machines.
func (w *world) names() (names []string) {
	for _, m := range w.machines {
		names = append(names, m.name)
	}
	return names
}

func (w *world) machine(name string) *machine {
	return w.machines[slices.IndexFunc(w.machines, func(m *machine) bool { return m.name == name })]
}

// leader is the machine whose manager leads, or nil.
func (w *world) leader() *machine {
	for _, m := range w.machines {
		if m.manager == nil {
			continue
		}
		if lead, _ := m.manager.store.Leadership(); lead.Self {
			return m
		}
	}
	return nil
}

// patience is how long people try again what no manager could do.
const patience = 2 * time.Minute

// ask makes a call as root on a manager's machine, and makes it again under the same id on the next one while it can't be done.
func (w *world) ask(call func(context.Context, api.ControlClient) error) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	began := time.Now()
	for try := 0; ; try++ {
		m := w.machines[try%managers]
		err := fault.New(fault.Unavailable, "no manager runs on %s", m.name)
		if m.manager != nil {
			err = w.askAt(m, hex.EncodeToString(id), call)
		}
		kind := fault.KindOf(err)
		passes := kind == fault.Unavailable || kind == fault.NotLeader || errors.Is(err, context.DeadlineExceeded)
		if err == nil || !passes || time.Since(began) > patience {
			return err
		}
		if try%managers == managers-1 {
			_ = pause(w.t.Context(), time.Second)
		}
	}
}

// askAt makes a call once. The socket is on the machine itself, so that no cut of the network is in between.
func (w *world) askAt(m *machine, id string, call func(context.Context, api.ControlClient) error) error {
	conn, err := grpc.NewClient("passthrough:///"+m.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(w.dialer(m.name)))
	if err != nil {
		return err
	}
	defer conn.Close()
	const once = 15 * time.Second
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(w.t.Context(), "skep-request-id", id), once)
	defer cancel()
	err = call(ctx, api.NewControlClient(conn))
	if err != nil && ctx.Err() != nil {
		return fault.Wrap(fault.Unavailable, ctx.Err())
	}
	return fault.FromStatus(err)
}

// looksEvery is the time between two looks at something that is waited for.
const looksEvery = 2 * time.Second

// await waits until what returns "" for what is still missing.
func (w *world) await(most time.Duration, what string, missing func() string) bool {
	began, last := time.Now(), ""
	for w.intact() {
		if last = missing(); last == "" {
			return true
		}
		if time.Since(began) > most {
			w.violated("waited %s for %s: %s", most, what, last)
			return false
		}
		_ = pause(w.t.Context(), looksEvery)
	}
	return false
}

// at says when something was, in the time of the day.
func (w *world) at(when time.Time) string { return when.Sub(w.began).Round(time.Millisecond).String() }

// violated notes that something does not hold.
func (w *world) violated(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, w.at(time.Now())+": "+fmt.Sprintf(format, args...))
}

// intact reports whether all held so far.
func (w *world) intact() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.broken) == 0
}

// violations are those found.
func (w *world) violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.broken)
}

// calm reports whether nothing fails by itself now.
func (w *world) calm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quiet
}

func (w *world) setCalm(calm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = calm
}

// tail keeps the last lines that were written.
type tail struct {
	most int

	mu    sync.Mutex
	lines []string // guarded by mu
}

// Write implements io.Writer: each call is a line.
func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines[max(0, len(l.lines)-l.most+1):], strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// inBubble runs fn in virtual time. Timers that went off while nobody waited for them crash the race detector when two processors
// of one bubble run them at once (go.dev/issue/78156): there is one processor then.
func inBubble(t *testing.T, fn func(t *testing.T)) {
	if slow {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, fn)
}
