package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
)

var (
	crashRounds = flag.Int("crash-rounds", 4, "how often TestCrash ends the supervisor, the daemon or both with SIGKILL")
	crashTasks  = flag.Int("crash-tasks", 40, "how many tasks come and go meanwhile")
	crashSeed   = flag.Uint64("crash-seed", 0, "what TestCrash's choices come from; 0 is a fresh one, which is printed")
)

const (
	// crashCode is what every task of TestCrash exits with by itself.
	crashCode = 3
	// crashEnds is how many tasks end in a second, about.
	crashEnds = 8
	// endsPerRound is how many are to end before the next round.
	endsPerRound = 6
	// crashPatience bounds a round, on a machine that does much else.
	crashPatience = 2 * time.Minute
)

// TestCrash_LosesNoExitCodeAndLeavesNothing ends the container supervisor, the daemon or both at random moments while tasks come
// and go: every task that ended by itself has its exit code, and in the end nothing is left of any. Where both were ended, the keeper
// sees the tasks that end until one of them is back.
func TestCrash_LosesNoExitCodeAndLeavesNothing(t *testing.T) { // I15
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -crash-seed %d", seed)
	m := swarmOf(t, newLab(t), "m1")[0]
	before := remains(t, m)
	c := &crasher{machine: m, client: newClient(t, seed, m), random: rand.New(rand.NewPCG(seed, 2)), ended: map[string]string{}}
	service, err := c.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.watch(watching) })
	kinds := map[string]int{}
	for round := range *crashRounds {
		kind, err := c.round(t.Context())
		if err != nil {
			t.Errorf("round %d (%s): %v", round+1, kind, err)
			break
		}
		kinds[kind]++
	}
	stop()
	wg.Wait()
	t.Logf("%d rounds %v, %d tasks ended by themselves", *crashRounds, kinds, len(c.ended))
	for id, what := range c.ended {
		if what != fmt.Sprintf("exit code %d", crashCode) {
			t.Errorf("task %s: %s; the supervisors said of it:\n%s", id, what, c.saidOf(id))
		}
	}
	if err := c.end(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	var left map[string][]string
	for deadline := time.Now().Add(crashPatience); time.Now().Before(deadline); c.pause(t.Context(), 200*time.Millisecond) {
		if left = remains(t, m); cmp.Equal(before, left) {
			return
		}
	}
	t.Errorf("what is left of tasks (-before +after):\n%s", cmp.Diff(before, left))
}

// crasher ends processes of a machine and watches its tasks.
type crasher struct {
	machine *lab.Machine
	client  *client
	random  *rand.Rand

	mu sync.Mutex
	// ended is what became of tasks that ended by themselves, by id; guarded by mu.
	ended map[string]string
}

func (c *crasher) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// begin creates the service and returns when its tasks run.
func (c *crasher) begin(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	after := max(time.Duration(*crashTasks)*time.Second/crashEnds, 2*time.Second)
	spec := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "mayflies"},
		Task: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "skep.local/hello", Args: []string{
				"--listen", "off", "--exit", fmt.Sprint(crashCode), "--after", after.String(),
			}},
			Restart: &api.RestartPolicy{Condition: api.RestartCondition_RESTART_CONDITION_ANY, Delay: durationpb.New(100 * time.Millisecond)},
		},
		Replicated: &api.ReplicatedService{Replicas: uint64(*crashTasks)},
	}
	var id string
	err := c.client.do(ctx, func(ctx context.Context, control api.ControlClient) error {
		response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec})
		id = response.GetService().GetId()
		return err
	})
	return id, err
}

func (c *crasher) end(ctx context.Context, service string) error {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	return c.client.do(ctx, func(ctx context.Context, control api.ControlClient) error {
		_, err := control.RemoveService(ctx, &api.RemoveServiceRequest{Service: service})
		return err
	})
}

// watch notes what becomes of tasks until ctx ends. A task stays known for a while after its end, so asking is enough.
func (c *crasher) watch(ctx context.Context) {
	watcher := &client{random: rand.New(rand.NewPCG(1, 1)), controls: c.client.controls}
	for ctx.Err() == nil {
		_ = watcher.do(ctx, func(ctx context.Context, control api.ControlClient) error {
			response, err := control.ListTasks(ctx, &api.ListTasksRequest{})
			for _, task := range response.GetTasks() {
				c.note(task)
			}
			return err
		})
		c.pause(ctx, 100*time.Millisecond)
	}
}

// note remembers a task that ended and was not told to.
func (c *crasher) note(task *api.Task) {
	status := task.GetStatus()
	what := ""
	switch status.GetState() {
	case api.TaskState_TASK_STATE_COMPLETE, api.TaskState_TASK_STATE_FAILED:
		what = fmt.Sprintf("exit code %d", status.GetContainer().GetExitCode())
		if status.GetContainer() == nil || status.GetContainer().GetExitCode() != crashCode {
			what += fmt.Sprintf(", %s: %s, desired is %s", status.GetState(), status.GetErr(), task.GetDesiredState())
		}
	case api.TaskState_TASK_STATE_REJECTED, api.TaskState_TASK_STATE_ORPHANED:
		what = fmt.Sprintf("%s: %s", status.GetState(), status.GetErr())
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[task.GetId()] = what
}

// saidOf gives the lines of the supervisors' log about a task, and the end of its own.
func (c *crasher) saidOf(id string) string {
	text, err := os.ReadFile(c.machine.DataDir() + "/runtime/supervisor.log")
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, id) || strings.Contains(line, "supervisor") {
			out.WriteString(line)
		}
	}
	own, err := os.ReadFile(c.machine.DataDir() + "/containers/" + id + "/log.json")
	if err != nil {
		return out.String() + err.Error()
	}
	const end = 500
	out.Write(own[max(0, len(own)-end):])
	return out.String()
}

func (c *crasher) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ended)
}

// round ends some processes at a random moment and returns when tasks end as before.
func (c *crasher) round(ctx context.Context) (kind string, err error) {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	kind = []string{"supervisor", "daemon", "both"}[c.random.IntN(3)]
	c.pause(ctx, time.Duration(c.random.IntN(300))*time.Millisecond)
	if kind != "daemon" {
		if err := c.kill(ctx, "skep-runtime"); err != nil {
			return kind, err
		}
	}
	if kind != "supervisor" {
		if err := c.machine.Kill(); err != nil {
			return kind, err
		}
		c.pause(ctx, time.Duration(c.random.IntN(300))*time.Millisecond)
		if err := c.machine.Start(ctx); err != nil {
			return kind, err
		}
	}
	for want := c.count() + endsPerRound; c.count() < want; c.pause(ctx, 50*time.Millisecond) {
		if ctx.Err() != nil {
			return kind, fmt.Errorf("%d tasks ended, want %d: %w", c.count(), want, ctx.Err())
		}
	}
	return kind, nil
}

// kill ends a process by its name, if need be as soon as there is one. Its children that have no other name yet, as a supervisor's
// that are about to become containers, are not meant.
func (c *crasher) kill(ctx context.Context, name string) error {
	for ; ctx.Err() == nil; c.pause(ctx, 10*time.Millisecond) {
		all := c.machine.Processes()
		for pid, found := range all {
			parent, err := parentOf(pid)
			if found == name && err == nil && all[parent] != name {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	return fmt.Errorf("no %s runs: %w", name, ctx.Err())
}

// parentOf gives the parent of a process, field 4 of its stat; see proc_pid_stat(5).
func parentOf(pid int) (parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	rest := text[bytes.LastIndexByte(text, ')')+1:]
	var state string
	_, err = fmt.Sscan(string(rest), &state, &parent)
	return parent, err
}

// othersMount reports whether a mount is of a test that runs at the same time: their ends are heard of in the machine's namespace.
func othersMount(m *lab.Machine, at string) bool {
	return strings.HasPrefix(at, os.TempDir()+"/") && !strings.HasPrefix(at, m.Dir+"/") && at != m.Dir
}

// remains lists what tasks may leave on a machine: processes, mounts, control groups, interfaces and network namespaces.
func remains(t *testing.T, m *lab.Machine) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	add := func(kind, what string) { out[kind] = append(out[kind], what) }
	for pid, name := range m.Processes() {
		if pid != m.PID() {
			add("process", name)
		}
	}
	for _, file := range []string{"mountinfo", "net/dev"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", m.PID(), file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if name, _, ok := strings.Cut(lines.Text(), ":"); file == "net/dev" && ok {
				add("interface", strings.TrimSpace(name))
			} else if file == "mountinfo" && len(fields) > 4 && !othersMount(m, fields[4]) {
				add("mount", fields[4])
			}
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + m.CgroupParent() + "/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		add("control group", g)
	}
	containers, err := filepath.Glob(m.DataDir() + "/runtime/containers/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		add("container", c)
	}
	for _, kind := range slices.Collect(maps.Keys(out)) {
		slices.Sort(out[kind])
	}
	return out
}

// lonely is a machine with a task that ends by itself, and with neither a daemon nor a supervisor that would see how.
func lonely(t *testing.T) (*crasher, context.Context) {
	t.Helper()
	m := swarmOf(t, newLab(t), "m1")[0]
	if _, err := m.Skep(t.Context(), "service", "create", "--name", "one", "--restart-condition", "none", "--detach",
		"skep.local/hello", "--listen", "off", "--exit", "7", "--after", "4s"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), crashPatience)
	t.Cleanup(cancel)
	c := &crasher{machine: m}
	c.await(t, ctx, "skep-hello", true)
	if _, err := awaitOutput(m, "Running [0-9]", "service", "ps", "one"); err != nil {
		t.Fatal(err)
	}
	return c, ctx
}

// await waits until a process with this name runs on the machine, or none does.
func (c *crasher) await(t *testing.T, ctx context.Context, name string, running bool) {
	t.Helper()
	for slices.Contains(slices.Collect(maps.Values(c.machine.Processes())), name) != running {
		if c.pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			t.Fatalf("%s runs: not %v in time", name, running)
		}
	}
}

// TestCrash_TheKeeperSawIt: a container ends while neither the daemon nor a supervisor runs, and its exit code and its last words are
// known all the same.
func TestCrash_TheKeeperSawIt(t *testing.T) {
	c, ctx := lonely(t)
	if err := c.machine.Kill(); err != nil { // the daemon, which would start another supervisor
		t.Fatal(err)
	}
	if err := c.kill(ctx, "skep-runtime"); err != nil {
		t.Fatal(err)
	}
	c.await(t, ctx, "skep-hello", false)
	if err := c.machine.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := awaitOutput(c.machine, `non-zero exit \(7\)`, "service", "ps", "--no-trunc", "one"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := awaitOutput(c.machine, `exit: 7, after 4s`, "service", "logs", "one"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCrash_TheAgentIsASecondSource: a container ends while neither a supervisor nor a keeper runs, and its exit code is known all
// the same, where the kernel tells whoever has watched. Then there are both again.
func TestCrash_TheAgentIsASecondSource(t *testing.T) {
	c, ctx := lonely(t)
	daemon := c.machine.DaemonPID()
	if err := syscall.Kill(daemon, syscall.SIGSTOP); err != nil { // so that it starts no others
		t.Fatal(err)
	}
	for _, name := range []string{"skep-keeper", "skep-runtime"} {
		if err := c.kill(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, ctx, "skep-hello", false)
	if err := syscall.Kill(daemon, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	want := `non-zero exit \(7\)`
	if !kernelTells() {
		want = `non-zero exit \(255\)`
	}
	if out, err := awaitOutput(c.machine, want, "service", "ps", "--no-trunc", "one"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	c.await(t, ctx, "skep-keeper", true)
	c.await(t, ctx, "skep-runtime", true)
}

// kernelTells says whether the kernel tells others than the parent how a process ended: from 6.15 on.
func kernelTells() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 15)
}
