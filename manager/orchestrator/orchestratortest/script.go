// Package orchestratortest runs scripts against the cores of orchestrator loops.
//
// A script is a file of the datadriven package. Its one command is `step now=<duration>`: the lines below it are what the
// core sees, and the answer is what it wants, one effect a line. Times are durations since an arbitrary zero.
//
//	step now=10s
//	service replicas=2 version=3 order=start-first parallelism=1 delay=2s ports=1 update=updating since=1s restored=1 previous message=because_of_x
//	        monitor=5s deadline=1m ratio=0.5 action=rollback back=pause
//	service job=5 concurrent=2    # or: globaljob
//	service global constraint=node.labels.k==v
//	service volume=data anywhere  # a mount of the volume, with volume-anywhere
//	node n1 ready                 # or: down, unknown; then drain or pause; then changed=5s, label=k:v, timeout=1m since=5s
//	task a slot=1 node=n1 bound=n1 state=running desired=running version=3 created=1s updated=2s condition=none delay=5s attempts=2 window=1m backoff=1m count=3
//	       ran=1s ended=2s err=unhealthy volume=data volumes-on=n1 began
//	       unready       # its readiness is checked; or: ready=3s lost=2s, when that was
//	limit 5
//	----
//	create slot=2 running
//
// Everything but the first word and the task's id may be left out: states are then running, versions 1 and slots 1.
package orchestratortest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/orchestrator"
)

// Run runs every script in a folder against a core.
func Run(t *testing.T, folder string, core orchestrator.Core) {
	t.Helper()
	datadriven.Walk(t, folder, func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "step" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			now := ""
			d.ScanArgs(t, "now", &now)
			v, err := parse(d.Input)
			if err != nil {
				d.Fatalf(t, "%v", err)
			}
			effects, wake := core(at(now), v)
			return Format(effects, wake)
		})
	})
}

func at(text string) time.Time {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(fmt.Sprintf("time %q: %v", text, err))
	}
	return time.Unix(1000, 0).Add(d)
}

// Format prints effects, and the time to wake at unless it is zero, one a line.
func Format(effects []orchestrator.Effect, wake time.Time) string {
	var out strings.Builder
	for _, e := range effects {
		var parts []string
		for _, d := range e.Desired {
			parts = append(parts, fmt.Sprintf("%s -> %s", d.TaskID, stateName(d.State)))
		}
		if e.Create != nil {
			text := fmt.Sprintf("create slot=%d %s", e.Create.Slot, stateName(e.Create.Desired))
			if e.Create.RestartCount > 1 {
				text += fmt.Sprintf(" count=%d", e.Create.RestartCount)
			}
			if e.Create.BoundNodeID != "" {
				text += " bound=" + e.Create.BoundNodeID
			}
			if e.Create.VolumeNodeID != "" {
				text += " volumes-on=" + e.Create.VolumeNodeID
			}
			parts = append(parts, text)
		}
		if e.Orphan != "" {
			parts = append(parts, "orphan "+e.Orphan)
		}
		if e.Delete != "" {
			parts = append(parts, "delete "+e.Delete)
		}
		if e.Adopt != "" {
			parts = append(parts, "adopt "+e.Adopt)
		}
		if e.Restore {
			parts = append(parts, "restore")
		}
		if e.Status != nil {
			parts = append(parts, strings.ToLower(strings.TrimPrefix(e.Status.GetState().String(), "UPDATE_STATE_"))+": "+e.Status.GetMessage())
		}
		fmt.Fprintln(&out, strings.Join(parts, ", "))
	}
	if !wake.IsZero() {
		fmt.Fprintf(&out, "wake at %v\n", wake.Sub(at("0s")))
	}
	return cmp.Or(out.String(), "nothing\n")
}

func stateName(s api.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

// line is one line of a script: a word, an optional id, flags and settings.
type line struct {
	word string
	rest []string
}

func (l line) has(flag string) bool { return slices.Contains(l.rest, flag) }

func (l line) get(key, otherwise string) string {
	for _, part := range l.rest {
		if value, ok := strings.CutPrefix(part, key+"="); ok {
			return value
		}
	}
	return otherwise
}

func (l line) number(key string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(l.get(key, strconv.FormatUint(otherwise, 10)), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s of %q: %v", key, l.word, err))
	}
	return n
}

func (l line) duration(key string) *durationpb.Duration {
	text := l.get(key, "")
	if text == "" {
		return nil
	}
	return durationpb.New(at(text).Sub(at("0s")))
}

func (l line) state(key string) api.TaskState {
	name := "TASK_STATE_" + strings.ToUpper(l.get(key, "running"))
	number, ok := api.TaskState_value[name]
	if !ok {
		panic("no state " + name)
	}
	return api.TaskState(number)
}

func parse(input string) (orchestrator.View, error) {
	nodes := map[string]*api.Node{}
	v := orchestrator.View{ServiceID: "s", HistoryLimit: 5, Node: func(id string) *api.Node { return nodes[id] }}
	for text := range strings.Lines(input) {
		text, _, _ = strings.Cut(text, "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		l := line{word: fields[0], rest: fields[1:]}
		switch l.word {
		case "service":
			v.Service = service(l)
		case "node":
			nodes[l.rest[0]] = node(l)
		case "task":
			v.Tasks = append(v.Tasks, task(l))
		case "limit":
			limit, err := strconv.ParseInt(l.rest[0], 10, 64)
			if err != nil {
				return v, err
			}
			v.HistoryLimit = limit
		default:
			return v, fmt.Errorf("unknown line %q", text)
		}
	}
	v.Eligible = eligible.For(v.Service, nil, slices.Collect(maps.Values(nodes)), nil)
	return v, nil
}

func service(l line) *api.Service {
	s := &api.Service{Id: "s", SpecVersion: l.number("version", 1), Spec: &api.ServiceSpec{
		Replicated: &api.ReplicatedService{Replicas: l.number("replicas", 1)},
		Update:     &api.UpdateConfig{Parallelism: l.number("parallelism", 1), Delay: l.duration("delay")},
		Endpoint:   &api.EndpointSpec{},
	}}
	if l.has("global") {
		s.Spec.Replicated, s.Spec.Global = nil, &api.GlobalService{}
	}
	if l.has("globaljob") {
		s.Spec.Replicated, s.Spec.GlobalJob = nil, &api.GlobalJob{}
	}
	if total := l.number("job", 0); total > 0 {
		s.Spec.Replicated = nil
		s.Spec.ReplicatedJob = &api.ReplicatedJob{TotalCompletions: total, MaxConcurrent: l.number("concurrent", 0)}
	}
	if c := l.get("constraint", ""); c != "" {
		s.Spec.Task = &api.TaskSpec{Placement: &api.Placement{Constraints: []string{c}}}
	}
	if c := container(l); c != nil {
		s.Spec.Task = &api.TaskSpec{Container: c}
	}
	if l.get("order", "") == "start-first" {
		s.Spec.Update.Order = api.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	for range l.number("ports", 0) {
		s.Spec.Endpoint.Ports = append(s.Spec.Endpoint.Ports, &api.PortConfig{TargetPort: 80})
	}
	s.Spec.Update.Monitor, s.Spec.Update.Deadline = l.duration("monitor"), l.duration("deadline")
	s.Spec.Update.FailureAction = action(l.get("action", "pause"))
	s.Spec.Rollback = proto.CloneOf(s.GetSpec().GetUpdate())
	s.Spec.Rollback.FailureAction = action(l.get("back", "pause"))
	ratio, err := strconv.ParseFloat(l.get("ratio", "0"), 32)
	if err != nil {
		panic(err)
	}
	s.Spec.Update.MaxFailureRatio = float32(ratio)
	if state := l.get("update", ""); state != "" {
		s.UpdateStatus = &api.UpdateStatus{
			State:      api.UpdateState(api.UpdateState_value["UPDATE_STATE_"+strings.ToUpper(state)]),
			CountsFrom: timestamppb.New(at(l.get("since", "0s"))),
			Message:    strings.ReplaceAll(l.get("message", ""), "_", " "),
		}
	}
	s.RestoredVersion = l.number("restored", 0)
	if l.has("previous") {
		s.PreviousSpec, s.PreviousSpecVersion = proto.CloneOf(s.GetSpec()), s.GetSpecVersion()-1
	}
	return s
}

// container returns one with the volume that a line names, or nil.
func container(l line) *api.ContainerSpec {
	name := l.get("volume", "")
	if name == "" {
		return nil
	}
	return &api.ContainerSpec{Mounts: []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: name, Target: "/v", VolumeAnywhere: l.has("anywhere")}}}
}

func action(name string) api.FailureAction {
	number, ok := api.FailureAction_value["FAILURE_ACTION_"+strings.ToUpper(name)]
	if !ok {
		panic("no failure action " + name)
	}
	return api.FailureAction(number)
}

func node(l line) *api.Node {
	n := &api.Node{
		Id: l.rest[0], Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE},
		Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY, ChangedAt: timestamppb.New(at(l.get("changed", "0s")))},
	}
	for flag, state := range map[string]api.NodeState{"down": api.NodeState_NODE_STATE_DOWN, "unknown": api.NodeState_NODE_STATE_UNKNOWN} {
		if l.has(flag) {
			n.Status.State = state
		}
	}
	if k, value, ok := strings.Cut(l.get("label", ""), ":"); ok {
		n.Spec.Annotations = &api.Annotations{Labels: map[string]string{k: value}}
		n.Description = &api.NodeDescription{Hostname: l.rest[0]}
	}
	if l.has("drain") {
		n.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
	}
	n.Spec.DrainTimeout, n.Status.DrainBeganAt = l.duration("timeout"), timestamppb.New(at(l.get("since", "0s")))
	if l.has("pause") {
		n.Spec.Availability = api.Availability_AVAILABILITY_PAUSE
	}
	return n
}

func task(l line) *api.Task {
	created := l.get("created", "0s")
	t := &api.Task{
		Id: l.rest[0], ServiceId: "s", Slot: l.number("slot", 1), SpecVersion: l.number("version", 1), NodeId: l.get("node", ""), BoundNodeId: l.get("bound", ""),
		Meta: &api.Meta{
			Version: 1, CreatedAt: timestamppb.New(at(created)), UpdatedAt: timestamppb.New(at(l.get("updated", created))),
		},
		Status: &api.TaskStatus{State: l.state("state")}, DesiredState: l.state("desired"),
		Spec: &api.TaskSpec{Restart: &api.RestartPolicy{
			Delay: l.duration("delay"), MaxAttempts: l.number("attempts", 0), Window: l.duration("window"),
			Condition: api.RestartCondition_RESTART_CONDITION_ANY,
		}},
	}
	if text := l.get("ran", ""); text != "" {
		t.Status.RunningAt = timestamppb.New(at(text))
	}
	if text := l.get("ended", ""); text != "" {
		t.Status.EndedAt = timestamppb.New(at(text))
	}
	t.Status.Err = l.get("err", "")
	t.Status.Readiness = readiness(l)
	t.Spec.Container, t.VolumeNodeId = container(l), l.get("volumes-on", "")
	if l.has("began") {
		t.Status.Container = &api.ContainerStatus{ContainerId: t.GetId()}
	}
	t.RestartCount = l.number("count", 0)
	if longest := l.duration("backoff"); longest != nil {
		t.Spec.Restart.Backoff, t.Spec.Restart.MaxDelay = api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL, longest
	}
	switch l.get("condition", "any") {
	case "none":
		t.Spec.Restart.Condition = api.RestartCondition_RESTART_CONDITION_NONE
	case "on-failure":
		t.Spec.Restart.Condition = api.RestartCondition_RESTART_CONDITION_ON_FAILURE
	}
	return t
}

// readiness returns that of a task whose line says something of it, or nil.
func readiness(l line) *api.Readiness {
	ready, lost := l.get("ready", ""), l.get("lost", "")
	if ready == "" && lost == "" && !l.has("unready") {
		return nil
	}
	r := &api.Readiness{Ready: !l.has("unready")}
	if ready != "" {
		r.ReadyAt = timestamppb.New(at(ready))
	}
	if lost != "" {
		r.LostAt = timestamppb.New(at(lost))
	}
	return r
}
