package task

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// epoch is the time 0 of the scripts.
var epoch = time.Unix(1_700_000_000, 0)

// A service's list says since when a task runs: checks that fail now and then must not make it younger.
func TestMachine_WhatChecksSayLeavesTheTimeOfTheState(t *testing.T) {
	since := timestamppb.New(epoch)
	m := NewMachine(&api.Task{Id: "t1", DesiredState: api.TaskState_TASK_STATE_RUNNING}, &api.TaskStatus{
		Timestamp: since, State: api.TaskState_TASK_STATE_RUNNING, Message: "started and healthy",
	})
	m.Step(epoch.Add(time.Minute), Input{Begin: true, Found: &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY}})
	log := &api.ProbeLog{FailingStreak: 1}
	m.Step(epoch.Add(time.Hour), Input{Probed: &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY, HealthChecks: log}})
	got := m.Status()
	if !proto.Equal(got.GetTimestamp(), since) || !proto.Equal(got.GetContainer().GetHealthChecks(), log) {
		t.Errorf("got %v", got)
	}
}

// TestMachine runs the scripts in testdata/machine. Commands: new [state=S] [reviving] [desired=S] [grace=D] [memory=BYTES] [checked [unready|isready]] [restart=none|on_failure],
// begin [found=running] [found=exited exit=N] [lost], reached, alone, readiness [ready] [why=TEXT], probed health=H [failing=N], assign desired=S, unassign, done OP [err=TEXT [kind=KIND]] [exit=N] [oom] [health=H], wake, tick, at D.
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		s := &script{now: epoch}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	now  time.Time
	task *api.Task
	m    *Machine
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	in := Input{}
	switch d.Cmd {
	case "new":
		return s.newMachine(t, d)
	case "at":
		after, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		s.now = epoch.Add(after)
		in.Tick = true
	case "begin":
		in.Begin = true
		if d.HasArg("found") {
			in.Found = &api.ContainerStatus{ContainerId: "t1", Pid: 7, Health: healthArg(t, d)}
		}
		if d.HasArg("exit") {
			in.Found.Pid = 0
			d.ScanArgs(t, "exit", &in.Found.ExitCode)
		}
		in.Lost = d.HasArg("lost")
	case "reached":
		in.Reached = true
	case "alone":
		in.Alone = true
	case "assign":
		s.task.DesiredState = stateArg(t, d, "desired")
		in.Task = s.task
	case "unassign":
		in.Unassigned = true
	case "wake":
		in.Wake = true
	case "readiness":
		in.Readiness = &api.Readiness{Ready: d.HasArg("ready"), Checks: &api.ProbeLog{}}
		d.MaybeScanArgs(t, "why", &in.Why)
	case "probed":
		in.Probed = &api.ContainerStatus{Health: healthArg(t, d), HealthChecks: &api.ProbeLog{}}
		if d.HasArg("failing") {
			in.Probed.HealthOutput = "exit code 1: no answer"
			d.ScanArgs(t, "failing", &in.Probed.HealthChecks.FailingStreak)
		}
	case "done":
		in = doneInput(t, d)
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return s.print(s.m.Step(s.now, in))
}

func (s *script) newMachine(t *testing.T, d *datadriven.TestData) string {
	s.now = epoch
	s.task = &api.Task{Id: "t1", DesiredState: api.TaskState_TASK_STATE_RUNNING, Spec: &api.TaskSpec{Container: &api.ContainerSpec{}}}
	status := &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
	if d.HasArg("state") {
		status.State = stateArg(t, d, "state")
	}
	if d.HasArg("desired") {
		s.task.DesiredState = stateArg(t, d, "desired")
	}
	if d.HasArg("grace") {
		var text string
		d.ScanArgs(t, "grace", &text)
		grace, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		s.task.Spec.Container.StopGracePeriod = durationpb.New(grace)
	}
	if d.HasArg("reviving") {
		status.Message = revivingText
	}
	if d.HasArg("memory") {
		var limit int64
		d.ScanArgs(t, "memory", &limit)
		s.task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: limit}}
	}
	if d.HasArg("restart") {
		var name string
		d.ScanArgs(t, "restart", &name)
		s.task.Spec.Restart = &api.RestartPolicy{Condition: api.RestartCondition(api.RestartCondition_value["RESTART_CONDITION_"+strings.ToUpper(name)])}
	}
	if d.HasArg("follows") {
		s.task.Spec.Container.Secrets = []*api.SecretReference{{SecretId: "x1", OnChange: api.OnChange_ON_CHANGE_NONE}}
	}
	if d.HasArg("checked") {
		s.task.Spec.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "probe"}}
	}
	switch {
	case d.HasArg("isready"):
		status.Readiness, status.Message = &api.Readiness{Ready: true}, "ready"
	case d.HasArg("unready"):
		status.Readiness, status.Message, status.Err = &api.Readiness{}, "not ready", "not ready: exit code 1"
	}
	s.m = NewMachine(s.task, status)
	return ""
}

func doneInput(t *testing.T, d *datadriven.TestData) Input {
	t.Helper()
	in := Input{}
	for op := OpPrepare; op <= OpRefresh; op++ {
		if op.String() == strings.ReplaceAll(d.CmdArgs[0].Key, "_", " ") {
			in.Done = op
		}
	}
	if in.Done == 0 {
		t.Fatalf("unknown operation %s", d.CmdArgs[0].Key)
	}
	if d.HasArg("err") {
		var text, kind string
		d.ScanArgs(t, "err", &text)
		if d.HasArg("kind") {
			d.ScanArgs(t, "kind", &kind)
		}
		in.Err = errors.New(strings.ReplaceAll(text, "_", " "))
		for k := fault.Internal; k <= fault.Unavailable; k++ {
			if strings.ReplaceAll(k.String(), " ", "") == kind {
				in.Err = fault.Wrap(k, in.Err)
			}
		}
		return in
	}
	if in.Done == OpStart {
		in.Container = &api.ContainerStatus{ContainerId: "t1", Pid: 7, Health: healthArg(t, d)}
	}
	if d.HasArg("version") {
		v := &api.ReceivedValue{Id: "x1"}
		d.ScanArgs(t, "version", &v.Version)
		in.Container = &api.ContainerStatus{Values: []*api.ReceivedValue{v}}
	}
	if d.HasArg("exit") {
		var code int
		d.ScanArgs(t, "exit", &code)
		in.Container = &api.ContainerStatus{ContainerId: "t1", ExitCode: int32(code), OomKilled: d.HasArg("oom")}
	}
	return in
}

// healthArg reads health=starting|healthy|unhealthy, or none.
func healthArg(t *testing.T, d *datadriven.TestData) api.HealthState {
	t.Helper()
	if !d.HasArg("health") {
		return 0
	}
	var name string
	d.ScanArgs(t, "health", &name)
	v, ok := api.HealthState_value["HEALTH_STATE_"+strings.ToUpper(name)]
	if !ok {
		t.Fatalf("unknown health %s", name)
	}
	return api.HealthState(v)
}

func stateArg(t *testing.T, d *datadriven.TestData, key string) api.TaskState {
	t.Helper()
	var name string
	d.ScanArgs(t, key, &name)
	v, ok := api.TaskState_value["TASK_STATE_"+strings.ToUpper(name)]
	if !ok {
		t.Fatalf("unknown state %s", name)
	}
	return api.TaskState(v)
}

func (s *script) print(effects []Effect) string {
	var out strings.Builder
	for _, e := range effects {
		switch {
		case e.Do != 0:
			fmt.Fprintf(&out, "do %s\n", e.Do)
		case e.Cancel:
			fmt.Fprintln(&out, "cancel")
		case e.Report != nil:
			state := strings.TrimPrefix(e.Report.GetState().String(), "TASK_STATE_")
			fmt.Fprintf(&out, "report %s %q", state, e.Report.GetMessage())
			if e.Report.GetErr() != "" {
				fmt.Fprintf(&out, " err %q", e.Report.GetErr())
			}
			for _, v := range e.Report.GetContainer().GetValues() {
				fmt.Fprintf(&out, " has %s@%d", v.GetId(), v.GetVersion())
			}
			if c := e.Report.GetContainer(); c != nil {
				fmt.Fprintf(&out, " pid %s exit %s", strconv.Itoa(int(c.GetPid())), strconv.Itoa(int(c.GetExitCode())))
				if log := c.GetHealthChecks(); log != nil {
					fmt.Fprintf(&out, " health %s failing %d", strings.TrimPrefix(c.GetHealth().String(), "HEALTH_STATE_"), log.GetFailingStreak())
				}
			}
			if r := e.Report.GetReadiness(); r != nil {
				fmt.Fprintf(&out, " ready %v", r.GetReady())
			}
			fmt.Fprintln(&out)
		case !e.Wake.IsZero():
			fmt.Fprintf(&out, "wake at %s\n", e.Wake.Sub(epoch))
		case e.Forget:
			fmt.Fprintln(&out, "forget")
		}
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

// TestMachine_AnyOrderOfEvents feeds random facts and holds I6, I15 and "one Forget at the end" against every step.
func TestMachine_AnyOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := &api.Task{Id: "t1", DesiredState: api.TaskState_TASK_STATE_RUNNING}
		var status *api.TaskStatus
		if rapid.Bool().Draw(t, "ran") {
			status = &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}
		}
		m := NewMachine(task, status)
		w := &world{t: t, now: epoch, m: m, running: map[Operation]bool{}}
		w.step(Input{Begin: true})
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			w.random(task)
		}
		w.settle()
	})
}

// world is what surrounds a machine: operations that end sometime, in any way.
type world struct {
	t         *rapid.T
	now       time.Time
	m         *Machine
	running   map[Operation]bool
	last      api.TaskState
	wake      time.Time
	released  bool
	forgotten bool
}

func (w *world) step(in Input) {
	for _, e := range w.m.Step(w.now, in) {
		if w.forgotten {
			w.t.Fatal("an effect after Forget")
		}
		switch {
		case e.Do != 0:
			if w.running[e.Do] {
				w.t.Fatalf("%s begins while it is under way", e.Do)
			}
			w.running[e.Do] = true
			if e.Do == OpRelease && (w.running[OpStart] || w.running[OpPrepare] || w.running[OpWatch]) {
				w.t.Fatal("I15: released while something is under way")
			}
		case e.Report != nil:
			if e.Report.GetState() < w.last {
				w.t.Fatalf("I6: %s after %s", e.Report.GetState(), w.last)
			}
			w.last = e.Report.GetState()
		case !e.Wake.IsZero():
			w.wake = e.Wake
		case e.Forget:
			w.forgotten = true
			if !w.released {
				w.t.Fatal("I15: forgotten before its release")
			}
		}
	}
}

func (w *world) random(task *api.Task) {
	switch rapid.IntRange(0, 8).Draw(w.t, "event") {
	case 0:
		task.DesiredState = rapid.SampledFrom([]api.TaskState{
			api.TaskState_TASK_STATE_READY, api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_REMOVE,
		}).Draw(w.t, "desired")
		w.step(Input{Task: task})
	case 1:
		w.step(Input{Wake: true})
	case 2:
		if !w.wake.IsZero() {
			w.now, w.wake = w.wake, time.Time{}
			w.step(Input{Tick: true})
		}
	case 3:
		w.step(Input{Alone: true})
	case 4:
		if rapid.IntRange(0, 4).Draw(w.t, "reached") == 0 {
			w.step(Input{Reached: true})
		}
	default:
		w.end(rapid.Bool().Draw(w.t, "fails"))
	}
}

// end ends one operation that is under way.
func (w *world) end(fails bool) {
	for op := OpPrepare; op <= OpRemove; op++ {
		if !w.running[op] {
			continue
		}
		delete(w.running, op)
		in := Input{Done: op}
		switch {
		case fails:
			in.Err = fault.New(fault.Unavailable, "not now")
		case op == OpRelease:
			w.released = true
		case op == OpWatch:
			in.Container = &api.ContainerStatus{ExitCode: int32(rapid.IntRange(0, 2).Draw(w.t, "code"))}
		}
		w.step(in)
		return
	}
}

// settle takes the task away and lets everything succeed: the machine must come to its end.
func (w *world) settle() {
	w.step(Input{Unassigned: true})
	for range 50 {
		if w.forgotten {
			return
		}
		if !w.wake.IsZero() {
			w.now, w.wake = w.wake, time.Time{}
			w.step(Input{Tick: true})
		}
		w.end(false)
	}
	w.t.Fatalf("not forgotten; phase %d, under way %v", w.m.phase, w.running)
}
