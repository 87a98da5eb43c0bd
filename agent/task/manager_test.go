package task_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/agent/task/tasktest"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a manager on a data directory with an executor that outlives it.
type node struct {
	t    *testing.T
	dir  string
	fake *tasktest.Fake
	m    *task.Manager
	stop func()

	mu     sync.Mutex
	states map[string][]string
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), fake: tasktest.NewFake(), states: map[string][]string{}}
	n.start()
	return n
}

func (n *node) start() {
	n.t.Helper()
	m, err := task.Open(task.Config{Dir: n.dir, Executor: n.fake, Report: n.report, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		n.t.Fatal(err)
	}
	n.m = m
	ctx, cancel := context.WithCancel(n.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); err != nil {
			n.t.Error(err)
		}
	})
	n.stop = func() {
		cancel()
		running.Wait()
		if err := m.Close(); err != nil {
			n.t.Error(err)
		}
	}
}

func (n *node) report(id string, s *api.TaskStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := strings.TrimPrefix(s.GetState().String(), "TASK_STATE_")
	if s.GetErr() != "" {
		text += ": " + s.GetErr()
	}
	n.states[id] = append(n.states[id], text)
}

// syncs is, in virtual time, long enough for what waits to share a sync, and too short for anything to be tried again.
const syncs = 20 * time.Millisecond

func settle() {
	<-time.After(syncs)
	synctest.Wait()
}

// told returns what was reported of a task since the last call.
func (n *node) told(id string) []string {
	settle()
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.states[id]
	delete(n.states, id)
	return out
}

func (n *node) want(id string, states ...string) {
	n.t.Helper()
	if diff := cmp.Diff(states, n.told(id)); diff != "" {
		n.t.Errorf("states of %s (-want +got):\n%s", id, diff)
	}
}

func (n *node) assign(complete bool, tasks ...*api.Task) {
	n.t.Helper()
	if err := n.m.Assign(n.t.Context(), complete, tasks, nil); err != nil {
		n.t.Fatal(err)
	}
}

func newTask(id string, args ...string) *api.Task {
	return &api.Task{
		Id: id, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{Image: "app", Args: args}},
	}
}

func withDesired(t *api.Task, s api.TaskState) *api.Task {
	t.DesiredState = s
	return t
}

func TestManager_RunsATaskToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.assign(true, newTask("t1", "serve"), newTask("t2", "exit", "2"))
		n.want("t1", "ACCEPTED", "PREPARING", "READY", "STARTING", "RUNNING")
		n.want("t2", "ACCEPTED", "PREPARING", "READY", "STARTING", "RUNNING", "FAILED: task: non-zero exit (2)")
		n.assign(false, withDesired(newTask("t1"), api.TaskState_TASK_STATE_REMOVE))
		n.want("t1", "SHUTDOWN")
		n.assign(true)
		settle()
		if !n.fake.Empty() || len(n.m.Statuses()) != 0 {
			t.Errorf("I15: left: %v, %v", n.fake.Calls(), n.m.Statuses())
		}
	})
}

func TestManager_TellsWhatChecksSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.assign(true, newTask("t1", "checked"))
		settle()
		told := func(health api.HealthState, why string) *api.ContainerStatus {
			return &api.ContainerStatus{Health: health, HealthOutput: why, HealthChecks: &api.ProbeLog{Results: []*api.ProbeResult{{Output: why}}}}
		}
		n.fake.Probed(t.Context(), "t1", told(api.HealthState_HEALTH_STATE_STARTING, "exit code 1: refused"))
		n.fake.Probed(t.Context(), "t1", told(api.HealthState_HEALTH_STATE_HEALTHY, ""))
		n.fake.Probed(t.Context(), "t1", told(api.HealthState_HEALTH_STATE_UNHEALTHY, "exit code 2: gone"))
		n.want("t1", "ACCEPTED", "PREPARING", "READY", "STARTING", "STARTING", "STARTING: not healthy yet: exit code 1: refused", "RUNNING",
			"RUNNING: unhealthy: exit code 2: gone", "FAILED: unhealthy: exit code 2: gone")
		if c := n.m.Status("t1").GetContainer(); c.GetHealth() != api.HealthState_HEALTH_STATE_UNHEALTHY || c.GetHealthChecks().GetResults()[0].GetOutput() != "exit code 2: gone" {
			t.Errorf("at the end the container's status is %v", c)
		}
	})
}

// A restart of the daemon makes no task unready that was ready, and none ready that was not.
func TestManager_TellsWhetherATaskIsReadyAndRemembersIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		task := newTask("t1")
		task.Spec.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "probe"}}
		n.assign(true, task)
		settle()
		lost := &api.Readiness{Checks: &api.ProbeLog{FailingStreak: 3}}
		n.fake.ProbedReady(t.Context(), "t1", &api.Readiness{Ready: true})
		n.fake.ProbedReady(t.Context(), "t1", lost)
		n.want("t1", "ACCEPTED", "PREPARING", "READY", "STARTING", "RUNNING", "RUNNING", "RUNNING: not ready: exit code 1: no answer")
		n.stop()
		n.start()
		defer n.stop()
		settle()
		s := n.m.Status("t1")
		if !proto.Equal(s.GetReadiness(), lost) || s.GetErr() != "not ready: exit code 1: no answer" {
			t.Errorf("after a restart: %v", s)
		}
		n.fake.ProbedReady(t.Context(), "t1", &api.Readiness{Ready: true})
		settle()
		if s := n.m.Status("t1"); !s.GetReadiness().GetReady() || s.GetErr() != "" || s.GetState() != api.TaskState_TASK_STATE_RUNNING {
			t.Errorf("when it is ready again: %v", s)
		}
	})
}

func TestManager_KillsAfterTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.assign(true, newTask("t1", "stubborn"))
		n.told("t1")
		begun := time.Now()
		if err := n.m.Assign(t.Context(), false, nil, []string{"t1"}); err != nil {
			t.Fatal(err)
		}
		for n.told("t1") == nil {
			<-time.After(time.Second)
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("ended after %s, want the default of 10s", took)
		}
		settle()
		if !n.fake.Empty() {
			t.Error("I15: something is left")
		}
	})
}

func TestManager_ContinuesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(true, newTask("runs", "serve"), newTask("ends", "serve"), newTask("gone", "serve"), newTask("held", "serve"), newTask("done", "exit", "0"))
		for _, id := range []string{"runs", "ends", "gone", "held", "done"} {
			n.told(id)
		}
		n.stop()
		n.fake.Exit("ends", 33, false)
		n.fake.Vanish("gone")
		n.start()
		defer func() { n.stop() }()
		n.want("runs", "RUNNING")
		n.want("ends", "RUNNING", "FAILED: task: non-zero exit (33)")
		n.assign(true, newTask("runs"), newTask("ends"), newTask("gone"), newTask("held"), newTask("done"))
		n.want("gone", "RUNNING", "FAILED: the container is gone: the node was restarted, or the container removed by hand")
		n.want("done", "COMPLETE")
		for _, call := range n.fake.Calls()[1:] {
			if strings.HasPrefix(call, "start") && strings.Count(strings.Join(n.fake.Calls(), ","), call) > 1 {
				t.Errorf("T1: %s twice", call)
			}
		}
	})
}

// A node that is restarted with no manager in reach starts what ran there again. When a manager is back, that is the same task.
func TestManager_StartsAgainAloneAfterARestartOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		once := newTask("once", "serve")
		once.Spec.Restart = &api.RestartPolicy{Condition: api.RestartCondition_RESTART_CONDITION_NONE}
		tasks := []*api.Task{newTask("vanished", "serve"), newTask("ended", "serve"), newTask("waits", "serve"), once, newTask("done", "exit", "0")}
		n.assign(true, tasks...)
		for _, tk := range tasks {
			n.told(tk.GetId())
		}
		n.stop()
		n.fake.Reboot(143)
		n.fake.Vanish("vanished")
		n.start()
		defer func() { n.stop() }()
		n.want("vanished", "RUNNING")
		n.want("ended", "RUNNING")
		n.want("done", "COMPLETE")
		n.told("waits")
		n.fake.FailNext("start", "waits", fault.New(fault.Unavailable, "secret db is not here"))
		if err := n.m.Alone(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.want("vanished", "RUNNING", "RUNNING")
		n.want("ended", "RUNNING", "RUNNING")
		n.want("waits", "RUNNING", "RUNNING: secret db is not here")
		n.want("once", "RUNNING", "FAILED: task: non-zero exit (143)")

		n.assign(true, tasks...)
		n.want("vanished")
		n.want("waits", "FAILED: the container is gone: the node was restarted, or the container removed by hand")
		if err := n.m.Alone(t.Context()); err != nil {
			t.Fatal(err)
		}
		starts := map[string]int{}
		for _, call := range n.fake.Calls() {
			if id, ok := strings.CutPrefix(call, "start "); ok {
				starts[id]++
			}
		}
		if want := map[string]int{"vanished": 2, "ended": 2, "waits": 2, "once": 1, "done": 1}; !maps.Equal(starts, want) {
			t.Errorf("T1: starts are %v, want %v", starts, want)
		}
	})
}

// What a manager took away stays away, although the machine's end came before the task's, and with no manager in reach to say so again.
func TestManager_StartsNothingAgainThatWasTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		tasks := []*api.Task{newTask("removed", "stubborn"), newTask("unlisted", "stubborn"), newTask("stays", "stubborn")}
		n.assign(true, tasks...)
		settle()
		if err := n.m.Assign(t.Context(), false, nil, []string{"removed"}); err != nil {
			t.Fatal(err)
		}
		n.assign(true, newTask("stays", "stubborn"))
		for _, id := range []string{"removed", "unlisted"} {
			if got := n.m.Tasks()[id].GetDesiredState(); got != api.TaskState_TASK_STATE_REMOVE {
				t.Errorf("%s is to be %s", id, got)
			}
			n.told(id)
		}
		n.stop()
		n.fake.Reboot(137)
		n.start()
		defer func() { n.stop() }()
		settle()
		if err := n.m.Alone(t.Context()); err != nil {
			t.Fatal(err)
		}
		settle()
		starts := map[string]int{}
		for _, call := range n.fake.Calls() {
			if id, ok := strings.CutPrefix(call, "start "); ok {
				starts[id]++
			}
		}
		if want := map[string]int{"removed": 1, "unlisted": 1, "stays": 2}; !maps.Equal(starts, want) {
			t.Errorf("starts are %v, want %v", starts, want)
		}
		n.assign(true, newTask("stays", "stubborn"))
		settle()
		if left := n.m.Statuses(); len(left) != 1 || left["stays"] == nil {
			t.Errorf("I15: left are %v", left)
		}
	})
}

func TestManager_RemovesContainersWithoutATask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(true, newTask("t1", "serve"))
		n.told("t1")
		n.stop()
		if err := os.Remove(filepath.Join(n.dir, "tasks.db")); err != nil {
			t.Fatal(err)
		}
		n.start()
		defer func() { n.stop() }()
		settle()
		if !n.fake.Empty() {
			t.Error("I15: a container without a task is left")
		}
	})
}

func TestManager_WaitsForWhatIsNotThereYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.fake.FailNext("start", "t1", fault.New(fault.Unavailable, "secret db is not here"))
		n.assign(true, newTask("t1", "serve"))
		n.want("t1", "ACCEPTED", "PREPARING", "READY", "STARTING", "STARTING: secret db is not here")
		n.stop()
		n.fake.FailNext("start", "t1", fault.New(fault.Unavailable, "secret db is not here"))
		n.start()
		defer func() { n.stop() }()
		n.told("t1")
		if err := n.m.Wake(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.want("t1", "RUNNING")
	})
}

func TestManager_AdoptsWhenTheExecutorAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(true, newTask("t1", "serve"))
		n.told("t1")
		n.stop()
		n.fake.FailNext("adopt", "", errors.New("no runtime yet"))
		n.start()
		defer func() { n.stop() }()
		n.assign(true, newTask("t1", "serve"))
		n.want("t1", "RUNNING")
	})
}

func TestOpen_RefusesADamagedDatabase(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tasks.db"), bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Open(task.Config{Dir: dir}); !errors.Is(err, task.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

func TestOpen_RefusesAnotherFormat(t *testing.T) {
	dir := t.TempDir()
	b, err := bbolt.Open(filepath.Join(dir, "tasks.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return meta.Put([]byte("version"), []byte("99"))
	})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Open(task.Config{Dir: dir}); !errors.Is(err, task.ErrVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
}
