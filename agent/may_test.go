package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/agent/task/tasktest"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
)

// A machine that was removed from the swarm, or stolen, goes on no longer than its certificate does.
func TestAgent_StartsNothingAloneWithoutAValidCertificate(t *testing.T) {
	id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_WORKER))
	leaf := id.Current().Chain()[0]
	a := &Agent{cfg: Config{Identity: id}}
	for now, want := range map[time.Time]error{
		leaf.NotBefore: nil, leaf.NotAfter.Add(-time.Second): nil,
		leaf.NotAfter: errNotValid, leaf.NotBefore.Add(-time.Second): errNotValid, // a clock that was reset
	} {
		if err := a.mayStartAlone(now); !errors.Is(err, want) {
			t.Errorf("at %s, valid from %s to %s: %v", now, leaf.NotBefore, leaf.NotAfter, err)
		}
	}
}

// core is an agent without a session, of which the test is the manager. Its directory outlives it.
type core struct {
	*Agent
	// keyErr is what the node's own key can't be had for, or nil.
	keyErr atomic.Pointer[error]
	// stop ends the agent, as the end of the test does.
	stop func()
}

// newCore begins an agent in a directory, with an executor that outlives it, too.
func newCore(t *testing.T, dir string, fake *tasktest.Fake) *core {
	t.Helper()
	id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_WORKER))
	c := &core{Agent: &Agent{
		cfg: Config{Identity: id, DataDir: dir, AlonePatience: alonePatience}, log: slog.New(slog.DiscardHandler), secrets: &secret.Holder{},
		wake: make(chan struct{}, 1), seal: make(chan struct{}, 1), refusal: make(chan struct{}, 1), assigned: make(chan struct{}),
	}}
	own := filepath.Join(dir, agentDir)
	err := os.MkdirAll(own, 0o700)
	if err == nil {
		c.vault, err = secret.OpenVault(filepath.Join(own, "offline"), id.NodeID(), func() ([]byte, error) {
			if err := c.keyErr.Load(); err != nil {
				return nil, *err
			}
			return id.Current().RevealKey().Bytes()
		})
	}
	if err == nil {
		err = c.recallRefusal()
	}
	if err == nil {
		c.tasks, err = task.Open(task.Config{Dir: own, Executor: fake, Report: func(string, *api.TaskStatus) {}})
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, part := range []func(context.Context) error{c.tasks.Run, c.keepSecrets, c.startAlone} {
		running.Go(func() {
			if err := part(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	c.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := c.tasks.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	return c
}

// assign tells the agent a task that keeps its secret on the disk, as all that there is.
func (c *core) assign(t *testing.T) {
	t.Helper()
	err := handler{c.Agent}.Assign(t.Context(), true, []*api.AssignmentChange{
		{Object: &api.AssignmentChange_Task{Task: &api.Task{
			Id: "t1", NodeId: c.cfg.Identity.NodeID(), DesiredState: api.TaskState_TASK_STATE_RUNNING,
			Spec: &api.TaskSpec{Container: &api.ContainerSpec{
				Image: "app", Args: []string{"serve"}, SecretOffline: true, Secrets: []*api.SecretReference{{SecretId: "x1", SecretName: "db"}},
			}},
		}}},
		{Object: &api.AssignmentChange_Secret{Secret: &api.Secret{Id: "x1", Version: 1, Spec: &api.SecretSpec{Data: []byte("value")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *core) wantSealed(t *testing.T, when string, want bool) {
	t.Helper()
	<-time.After(time.Second) // of virtual time, in which writes to the disk end
	synctest.Wait()
	_, err := os.Stat(filepath.Join(c.cfg.DataDir, agentDir, "offline", "t1"))
	if (err == nil) != want {
		t.Errorf("%s: the secret is on the disk: %v", when, err == nil)
	}
}

// A refusal holds over restarts and sessions, until a manager tells what this node is to run. Nothing but a manager's word is one.
func TestAgent_StartsNothingAloneAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, now := t.TempDir(), time.Now()
		c := newCore(t, dir, tasktest.NewFake())
		c.assign(t)
		c.wantSealed(t, "assigned", true)
		for _, err := range []error{
			errors.New("no route"), fault.New(fault.Unavailable, "no leader"), fault.New(fault.Unauthenticated, "a valid node certificate of this swarm is required"),
			fault.New(fault.PermissionDenied, "task t9 is not assigned to node n1"),
		} {
			handler{c.Agent}.Disconnected(fmt.Errorf("session: %w", err))
			if err := c.mayStartAlone(now); err != nil {
				t.Errorf("after %v", err)
			}
		}
		c.wantSealed(t, "after errors that say nothing", true)

		handler{c.Agent}.Disconnected(fmt.Errorf("register: %w", session.Refused(fault.New(fault.PermissionDenied, "it was removed"))))
		c.wantSealed(t, "refused", false)
		handler{c.Agent}.Registered(&api.SessionResponse{})
		if err := c.mayStartAlone(now); !errors.Is(err, errRefused) {
			t.Errorf("in a session that told nothing: %v", err)
		}
		again := &Agent{cfg: c.cfg}
		if err := errors.Join(again.recallRefusal()); err != nil {
			t.Fatal(err)
		}
		if err := again.mayStartAlone(now); !errors.Is(err, errRefused) {
			t.Errorf("after a restart: %v", err)
		}

		c.assign(t)
		c.wantSealed(t, "assigned again", true)
		again = &Agent{cfg: c.cfg}
		if err := errors.Join(c.mayStartAlone(now), again.recallRefusal(), again.mayStartAlone(now)); err != nil {
			t.Errorf("after a manager told all tasks: %v", err)
		}
	})
}

// What waits to be started again is given up when a manager refuses the node after all.
func TestAgent_GivesUpWhatWaitsAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, fake := t.TempDir(), tasktest.NewFake()
		c := newCore(t, dir, fake)
		c.assign(t)
		c.wantSealed(t, "assigned", true)
		c.stop()
		fake.Reboot(137)
		for range 20 { // for some minutes
			fake.FailNext("prepare", "t1", fault.New(fault.Invalid, "no such disk"))
		}
		c = newCore(t, dir, fake)
		<-time.After(alonePatience + time.Second)
		synctest.Wait()
		if got := c.Waiting(); len(got) != 1 || !strings.Contains(got[0], "no such disk") {
			t.Fatalf("it waits for %q", got)
		}
		handler{c.Agent}.Disconnected(session.Refused(fault.New(fault.PermissionDenied, "it was removed")))
		c.wantSealed(t, "refused", false)
		<-time.After(time.Hour)
		synctest.Wait()
		starts := 0
		for _, call := range fake.Calls() {
			if call == "start t1" {
				starts++
			}
		}
		if state := c.tasks.Status("t1").GetState(); state != api.TaskState_TASK_STATE_FAILED || starts != 1 {
			t.Errorf("it is %s, and was started %d times", state, starts)
		}
	})
}

// A manager that is there and does not tell yet is catching up: it is waited for longer than one that is not.
func TestAgent_WaitsLongerForAManagerThatIsThere(t *testing.T) {
	tests := map[string]struct {
		during func(*Agent)
		want   time.Duration // 0 is never
	}{
		"no manager":             {func(*Agent) {}, 10 * time.Second},
		"a manager, tells never": {func(a *Agent) { handler{a}.Registered(&api.SessionResponse{}) }, time.Minute},
		"a manager, tells later": {func(a *Agent) {
			handler{a}.Registered(&api.SessionResponse{})
			<-time.After(45 * time.Second)
			close(a.assigned)
		}, 0},
		"a manager, gone again": {func(a *Agent) {
			handler{a}.Registered(&api.SessionResponse{})
			<-time.After(15 * time.Second)
			handler{a}.Disconnected(errors.New("gone"))
		}, 20 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_WORKER))
				a := &Agent{
					cfg: Config{Identity: id, AlonePatience: alonePatience}, log: slog.New(slog.DiscardHandler), assigned: make(chan struct{}),
				}
				go test.during(a)
				begun := time.Now()
				alone := a.staysAlone(t.Context())
				if took := time.Since(begun); alone != (test.want > 0) || alone && took != test.want {
					t.Errorf("alone: %v, after %s; want %s", alone, took, test.want)
				}
			})
		})
	}
}

// What can't be sealed, or erased, is tried again by itself.
func TestAgent_TriesAgainToKeepSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCore(t, t.TempDir(), tasktest.NewFake())
		full := errors.New("no space left on device")
		c.keyErr.Store(&full)
		c.assign(t)
		c.wantSealed(t, "while it fails", false)
		c.keyErr.Store(nil)
		<-time.After(sealAgain)
		c.wantSealed(t, "later", true)
	})
}
