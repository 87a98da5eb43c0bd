package progress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
)

// start is the beginning of every script.
func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestTracker runs scripts of snapshots. Each command prints what a plain or a live display shows.
//
//	new version=N monitor=D display=plain|live [back]
//	step at=D [version=N] [spec=N] replicas=N [update=STATE] [global] [job]
//	SLOT STATE [desired=STATE] [spec=N] [age=N] [err=TEXT]
//	tick at=D
func TestTracker(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var tracker *progress.Tracker
		var display progress.Display
		var screen bytes.Buffer
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			screen.Reset()
			var at time.Duration
			if d.HasArg("at") {
				at = durationArg(t, d, "at")
			}
			var view progress.View
			switch d.Cmd {
			case "new":
				tracker = progress.NewTracker(numberArg(t, d, "version", 0), durationArg(t, d, "monitor"))
				if d.HasArg("back") {
					tracker.Wanted()
				}
				display = displayArg(t, d, &screen)
				return ""
			case "step":
				view = tracker.Step(start().Add(at), snapshotOf(t, d))
			case "tick":
				view = tracker.Step(start().Add(at), nil)
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			if err := display.Show(view.Lines); err != nil {
				t.Fatal(err)
			}
			return strings.NewReplacer("\x1b", "ESC", "\r", "CR").Replace(screen.String()) + fmt.Sprintf("-> wake=%v converged=%v%s\n", view.Wake, view.Converged, failureOf(view))
		})
	})
}

func failureOf(view progress.View) string {
	if view.Stopped != "" {
		return " stopped=" + view.Stopped
	}
	if view.Failure == "" {
		return ""
	}
	return " failure=" + view.Failure
}

func displayArg(t *testing.T, d *datadriven.TestData, screen *bytes.Buffer) progress.Display {
	t.Helper()
	var kind string
	d.ScanArgs(t, "display", &kind)
	switch kind {
	case "plain":
		return progress.NewPlain(screen)
	case "live":
		return progress.NewLive(screen, 70)
	}
	t.Fatalf("unknown display %s", kind)
	return nil
}

func durationArg(t *testing.T, d *datadriven.TestData, name string) time.Duration {
	t.Helper()
	var text string
	d.ScanArgs(t, name, &text)
	out, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func numberArg(t *testing.T, d *datadriven.TestData, name string, fallback uint64) uint64 {
	t.Helper()
	if d.HasArg(name) {
		d.ScanArgs(t, name, &fallback)
	}
	return fallback
}

func snapshotOf(t *testing.T, d *datadriven.TestData) *progress.Snapshot {
	t.Helper()
	spec := numberArg(t, d, "spec", 1)
	s := &progress.Snapshot{Service: service(numberArg(t, d, "version", 1), spec, numberArg(t, d, "replicas", 0))}
	if d.HasArg("job") {
		total := s.Service.GetSpec().GetReplicated().GetReplicas()
		s.Counts = &api.ServiceCounts{Total: total}
		s.Service.Spec = &api.ServiceSpec{ReplicatedJob: &api.ReplicatedJob{TotalCompletions: total}}
	}
	if d.HasArg("global") {
		s.Counts = &api.ServiceCounts{Desired: s.Service.GetSpec().GetReplicated().GetReplicas()}
		s.Service.Spec = &api.ServiceSpec{Global: &api.GlobalService{}}
	}
	if d.HasArg("update") {
		var state string
		d.ScanArgs(t, "update", &state)
		s.Service.UpdateStatus = &api.UpdateStatus{
			State: api.UpdateState(api.UpdateState_value["UPDATE_STATE_"+strings.ToUpper(state)]), Message: "the managers' word for " + state,
		}
	}
	for line := range strings.Lines(d.Input) {
		task := parseTask(t, strings.TrimSpace(line), spec)
		if d.HasArg("global") {
			task.BoundNodeId = fmt.Sprintf("node%08dxxxx", task.GetSlot())
		}
		s.Tasks = append(s.Tasks, task)
	}
	return s
}

func service(version, spec, replicas uint64) *api.Service {
	return &api.Service{
		Id: "svc1", Meta: &api.Meta{Version: version}, SpecVersion: spec,
		Spec: &api.ServiceSpec{Replicated: &api.ReplicatedService{Replicas: replicas}},
	}
}

func parseTask(t *testing.T, line string, spec uint64) *api.Task {
	t.Helper()
	line, err, _ := strings.Cut(line, " err=")
	parts := strings.Fields(line)
	slot, parseErr := strconv.ParseUint(parts[0], 10, 64)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	task := &api.Task{
		Id: line, Slot: slot, SpecVersion: spec, Meta: &api.Meta{}, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: stateNamed(t, parts[1]), Err: err},
	}
	for _, part := range parts[2:] {
		key, value, _ := strings.Cut(part, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "unready":
			task.Status.Readiness = &api.Readiness{}
		case "desired":
			task.DesiredState = stateNamed(t, value)
		case "spec":
			task.SpecVersion = n
		case "age":
			task.Meta.CreatedAt = timestamppb.New(start().Add(-time.Duration(n) * time.Second))
		default:
			t.Fatalf("unknown field %s", part)
		}
	}
	return task
}

func stateNamed(t *testing.T, name string) api.TaskState {
	t.Helper()
	state, ok := api.TaskState_value["TASK_STATE_"+strings.ToUpper(name)]
	if !ok {
		t.Fatalf("no state %s", name)
	}
	return api.TaskState(state)
}

func whole() *progress.Snapshot {
	return &progress.Snapshot{Service: service(1, 1, 1), Tasks: []*api.Task{{
		Slot: 1, SpecVersion: 1, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
	}}}
}

func TestRun_WaitsUntilTheServiceIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		began := time.Now()
		watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
			send(whole())
			<-ctx.Done()
			return ctx.Err()
		}
		err := progress.Run(t.Context(), watch, progress.NewTracker(1, progress.DefaultMonitor), progress.NewPlain(&screen))
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited != progress.DefaultMonitor {
			t.Errorf("waited %v, want %v", waited, progress.DefaultMonitor)
		}
		want := "overall progress: 1 out of 1 tasks\n1/1: running\n"
		for left := 5; left > 0; left-- {
			want += fmt.Sprintf("verify: Waiting %d seconds to verify that tasks are stable...\n", left)
		}
		want += "verify: Service svc1 converged\n"
		if screen.String() != want {
			t.Errorf("got\n%s\nwant\n%s", screen.String(), want)
		}
	})
}

func TestRun_StartsOverWhenATaskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
			send(whole())
			<-time.After(3 * time.Second)
			send(&progress.Snapshot{Service: service(1, 1, 1)})
			<-time.After(4 * time.Second)
			send(whole())
			<-ctx.Done()
			return ctx.Err()
		}
		err := progress.Run(t.Context(), watch, progress.NewTracker(1, 5*time.Second), progress.Quiet{})
		if waited := time.Since(began); err != nil || waited != 12*time.Second {
			t.Errorf("got %v after %v, want no error after 12s", err, waited)
		}
	})
}

func TestRun_EndsWithAServiceThatIsNotRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
			failed := whole()
			failed.Tasks[0].DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
			failed.Tasks[0].Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED, Err: "task: non-zero exit (7)"}
			send(failed)
			<-ctx.Done()
			return ctx.Err()
		}
		err := progress.Run(t.Context(), watch, progress.NewTracker(1, time.Second), progress.Quiet{})
		if !errors.Is(err, progress.ErrEnded) || !strings.Contains(err.Error(), "non-zero exit (7)") {
			t.Errorf("got %v, want ErrEnded with its reason", err)
		}
	})
}

func TestRun_EndsWithAnUpdateThatIsPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
			paused := whole()
			paused.Service.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_PAUSED, Message: "task x failed"}
			send(paused)
			<-ctx.Done()
			return ctx.Err()
		}
		err := progress.Run(t.Context(), watch, progress.NewTracker(1, time.Second), progress.Quiet{})
		if !errors.Is(err, progress.ErrStopped) || !strings.Contains(err.Error(), "task x failed") {
			t.Errorf("got %v, want ErrStopped with its reason", err)
		}
	})
}

func TestRun_EndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
			send(&progress.Snapshot{Service: service(1, 1, 1)})
			<-ctx.Done()
			return ctx.Err()
		}
		err := progress.Run(ctx, watch, progress.NewTracker(1, time.Second), progress.Quiet{})
		if !errors.Is(err, progress.ErrInterrupted) {
			t.Errorf("got %v, want ErrInterrupted", err)
		}
	})
}

func TestRun_ReportsTheWatchsAndTheDisplaysError(t *testing.T) {
	broken := errors.New("broken")
	for name, run := range map[string]func() error{
		"watch": func() error {
			watch := func(context.Context, func(*progress.Snapshot)) error { return broken }
			return progress.Run(t.Context(), watch, progress.NewTracker(1, time.Second), progress.Quiet{})
		},
		"display": func() error {
			watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
				send(whole())
				send(whole())
				return nil
			}
			return progress.Run(t.Context(), watch, progress.NewTracker(1, time.Second), failing{broken})
		},
	} {
		if err := run(); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// failing is a display that can't be written to.
type failing struct{ err error }

func (f failing) Show([]progress.Line) error { return f.err }
