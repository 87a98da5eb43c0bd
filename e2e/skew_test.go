package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/internal/fault"
)

// previousVersion is the commit that this version must work with in one swarm, and whose data it takes over: the last release.
const previousVersion = "b41ffa426ff7b98fb1803b58e78e5b6401523c3f"

const (
	skewWriters = 2
	// writesPerStep are acknowledged in each mixture of versions at least.
	writesPerStep = 40
)

// A swarm of the previous version becomes one of this version, a machine at a time, while clients write and a service runs. Then
// one machine goes back.
func TestSkew_ASwarmIsUpgradedWhileItIsUsed(t *testing.T) {
	t.Parallel()
	network := newLab(t)
	this, err := lab.ProgramsIn("../bin")
	if err != nil {
		t.Fatal(err)
	}
	previous := buildPrevious(t, this)
	u := &upgrade{t: t, network: network, this: this, previous: previous}
	u.begin()
	u.followersFirst()
	u.leaderLast()
	u.workers()
	u.endWriting()
	checkWrites(t, u.managers, u.writers)
	u.oneGoesBack()
}

// upgrade is a swarm on its way from one version to another.
type upgrade struct {
	t              *testing.T
	network        *lab.Network
	this, previous lab.Programs
	managers       []*lab.Machine
	worker         *lab.Machine
	task           string
	steps          int

	client       *client
	writers      []*writer
	acknowledged atomic.Int64
	// handingOver is true while a leader of the previous version is stopped.
	handingOver atomic.Bool
	// endWriting stops the writers and waits for them.
	endWriting func()
}

// begin makes a swarm of the previous version, with writers and a service.
func (u *upgrade) begin() {
	u.t.Helper()
	for _, name := range []string{"m1", "m2", "m3", "w1", "m4"} {
		m, err := u.network.NewMachine(name)
		if err != nil {
			u.t.Fatal(err)
		}
		m.Install(u.previous)
		u.start(m)
	}
	all := u.network.Machines()
	u.managers, u.worker = slices.Clone(all[:3]), all[3]
	ctx, cancel := deadline()
	defer cancel()
	if err := u.network.Swarm(ctx, "m1", "m2", "m3", "w1"); err != nil {
		u.t.Fatal(err)
	}
	u.await(all[0], "Managers: 3$", "info")
	u.run(all[0], "service", "create", "-q", "--name", "web", "--constraint", "node.role==worker", "skep.local/hello")
	u.task = u.run(all[0], "service", "ps", "-q", "web")
	u.client = newClient(u.t, skewWriters, u.managers...)
	u.client.passes = u.passes
	u.write()
	u.progress("all of the previous version")
}

// write starts the writers.
func (u *upgrade) write() {
	stop, writing := make(chan struct{}), new(sync.WaitGroup)
	for i := range skewWriters {
		w := &writer{client: newClient(u.t, uint64(i), u.managers...), name: fmt.Sprint("w", i), acknowledged: &u.acknowledged, live: map[string]*api.Secret{}}
		w.passes = u.passes
		u.writers = append(u.writers, w)
		writing.Go(func() { w.run(u.t, stop) })
	}
	u.endWriting = sync.OnceFunc(func() {
		close(stop)
		writing.Wait()
	})
	u.t.Cleanup(u.endWriting)
}

// passes recognises what a manager of the previous version says for a while, and this one doesn't.
func (u *upgrade) passes(err error) bool {
	return previousStarts(err) || u.handingOver.Load() && previousIsBusy(err)
}

// previousIsBusy recognises what a leader of the previous version says of a write that comes while it hands over.
func previousIsBusy(err error) bool { return fault.KindOf(err) == fault.Internal }

// previousStarts recognises what a manager of the previous version says before it has read what it is from its disk.
func previousStarts(err error) bool {
	return fault.KindOf(err) == fault.Precondition && strings.Contains(err.Error(), "This node is not a swarm manager")
}

// followersFirst upgrades all managers but the leader.
func (u *upgrade) followersFirst() {
	leader := u.leader()
	for _, m := range u.managers {
		if m != leader {
			u.install(m, u.this)
			u.progress("a leader of the previous version, " + m.Name + " of this one")
		}
	}
}

// leaderLast makes the manager of the previous version a follower, lets another of that version join, and upgrades both.
func (u *upgrade) leaderLast() {
	old := u.leader()
	u.handingOver.Store(true)
	u.install(old, u.previous)
	u.handingOver.Store(false)
	if leader := u.leader(); leader == old {
		u.t.Fatalf("%s did not hand its leadership over when it was stopped", old.Name)
	}
	u.progress("a leader of this version, " + old.Name + " of the previous one")
	u.noUsersYet()
	joining := u.network.Machine("m4")
	token := u.run(u.managers[0], "swarm", "join-token", "-q", "manager")
	u.run(joining, "swarm", "join", "--token", token, fmt.Sprintf("%s:%d", u.managers[0].Address, lab.Port))
	u.await(joining, "Managers: 4$", "info")
	u.managers = append(u.managers, joining)
	u.progress("a manager of the previous version joined")
	u.install(old, u.this)
	u.install(joining, u.this)
	u.progress("all managers of this version")
}

// noUsersYet checks that there are no users before all managers know what an operator may not.
func (u *upgrade) noUsersYet() {
	ctx, cancel := deadline()
	defer cancel()
	_, err := u.leader().Skep(ctx, "user", "create", "--external", "--role", "operator", "olga")
	if err == nil || !strings.Contains(err.Error(), "upgrade skep there") {
		u.t.Errorf("a user is created while a manager is too old: %v", err)
	}
}

// workers upgrades the worker: what runs there goes on.
func (u *upgrade) workers() {
	u.install(u.worker, u.this)
	u.await(u.managers[0], `w1 .*Ready`, "node", "ls")
	u.await(u.managers[0], `web +replicated +1/1 `, "service", "ls")
	if task := u.run(u.managers[0], "service", "ps", "-q", "web"); task != u.task {
		u.t.Errorf("the upgrade replaced the task %s by %s", u.task, task)
	}
	u.run(u.managers[0], "service", "scale", "-d", "web=2")
	u.await(u.managers[0], `web +replicated +2/2 `, "service", "ls")
}

// oneGoesBack starts the previous version on data that this version wrote: it reads them, or says that it can't and leaves them
// alone.
func (u *upgrade) oneGoesBack() {
	for _, m := range u.managers {
		u.start(m)
	}
	m := u.managers[1]
	u.await(m, "Managers: 4$", "info")
	if err := m.Stop(); err != nil {
		u.t.Fatal(err)
	}
	before := diskOf(u.t, m)
	m.Install(u.previous)
	u.start(m)
	if format := before["FORMAT"]; strings.HasPrefix(format, "skep store 1\n") {
		u.await(m, "Managers: 4$", "info")
	} else {
		u.await(m, "Swarm: error$", "info")
		u.await(m, "start the version of skep that wrote it", "info")
		if diff := cmp.Diff(before, diskOf(u.t, m)); diff != "" {
			u.t.Errorf("the previous version touched data that it can't read (-before +after):\n%s", diff)
		}
	}
	u.install(m, u.this)
	u.await(m, "Managers: 4$", "info")
	u.await(u.managers[0], m.Name+` .*Ready +Active +(Reachable|Leader)`, "node", "ls")
}

// progress waits until writes were acknowledged in the present mixture.
func (u *upgrade) progress(mixture string) {
	u.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	for began := u.acknowledged.Load(); u.acknowledged.Load() < began+writesPerStep; pause(ctx) {
		if ctx.Err() != nil || u.t.Failed() {
			u.t.Fatalf("%s: only %d writes", mixture, u.acknowledged.Load()-began)
		}
	}
	u.steps++
	settle(ctx, u.t, fmt.Sprint("step", u.steps), u.managers)
	u.t.Logf("%s: %d writes", mixture, u.acknowledged.Load())
}

func (u *upgrade) leader() *lab.Machine {
	u.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	leader, err := u.client.leaderOf(ctx, u.network.Machines()...)
	if err != nil {
		u.t.Fatal(err)
	}
	return leader
}

// install stops a machine's daemon and starts that of other programs.
func (u *upgrade) install(m *lab.Machine, p lab.Programs) {
	u.t.Helper()
	if err := m.Stop(); err != nil {
		u.t.Fatal(err)
	}
	m.Install(p)
	u.start(m)
}

func (u *upgrade) start(m *lab.Machine) {
	u.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	if err := m.Start(ctx); err != nil {
		u.t.Fatal(err)
	}
}

// run runs the command line of the version that is installed.
func (u *upgrade) run(m *lab.Machine, args ...string) string {
	u.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	out, err := m.Skep(ctx, args...)
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// await runs a command until what it prints matches.
func (u *upgrade) await(m *lab.Machine, expression string, args ...string) {
	u.t.Helper()
	if _, err := awaitOutput(m, expression, args...); err != nil {
		u.t.Fatal(err)
	}
}

// diskOf is what the files of a manager's store hold.
func diskOf(t *testing.T, m *lab.Machine) map[string]string {
	t.Helper()
	files := map[string]string{}
	dir := filepath.Join(m.DataDir(), "raft")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(b)
	}
	return files
}

// buildPrevious returns the programs of the previous version, built from the repository's history; the built-in image is the
// present one. Where the history is cut short the test can't run.
func buildPrevious(t *testing.T, this lab.Programs) lab.Programs {
	t.Helper()
	dir := t.TempDir()
	if err := exec.Command("git", "cat-file", "-e", previousVersion+"^{commit}").Run(); err != nil {
		t.Skipf("needs the commit %s of the previous version: fetch the whole history", previousVersion)
	}
	began := time.Now()
	archive, err := exec.CommandContext(t.Context(), "git", "-C", "..", "archive", previousVersion).Output()
	if err != nil {
		t.Fatalf("git archive: %v", err)
	}
	unpacking := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	unpacking.Stdin = bytes.NewReader(archive)
	if out, err := unpacking.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=previous", "-o", "bin/", "./cmd/skep", "./cmd/skep-runtime")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the previous version: %v: %s", err, out)
	}
	t.Logf("built the previous version in %v", time.Since(began).Round(time.Second/10))
	bin := filepath.Join(dir, "bin")
	return lab.Programs{Skep: filepath.Join(bin, "skep"), Runtime: filepath.Join(bin, "skep-runtime"), Image: this.Image}
}
