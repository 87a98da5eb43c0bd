package scheduler_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/scheduler"
)

// TestScript runs the scripts in testdata/script. Each file is one cluster; each `step` gives the core changes, one a line, and `why` asks
// about one task, in the same words:
//
//	node n1 [down|drain|pause] [cpus=2] [memory=64] [label=k:v,k:v] [gpu=a,b] [fpga=3] [arch=arm64] [has=sha256:x] [storage] [online=0-3]
//	task a [service=s] [version=1] [state=pending] [desired=running] [node=n1] [cpus=1] [memory=8] [port=80] [max=2]
//	       [bound=n1] [constraint=node.labels.k==v] [grant=name:k:v] [image=app@sha256:x] [at=10s] [storage=1] [cpuset=0,2]
//	       [generic=gpu:2] [has=gpu:a] [spread=node.labels.k,node.labels.k] [strategy=binpack]
//	       [volume=data] [anywhere] [volumes-on=n1]
//	remove-node n1
//	remove-task a
func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		core := scheduler.NewCore()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			now := "0s"
			if d.HasArg("now") {
				d.ScanArgs(t, "now", &now)
			}
			var changes []scheduler.Change
			for line := range strings.Lines(d.Input) {
				change, err := parse(strings.Fields(line))
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				changes = append(changes, change)
			}
			if d.Cmd == "why" {
				return formatWhy(core.Explain(at(now), changes[0].Task))
			}
			return format(core.Step(at(now), changes))
		})
	})
}

func format(decisions []scheduler.Decision) string {
	if len(decisions) == 0 {
		return "nothing\n"
	}
	var out strings.Builder
	for _, d := range decisions {
		if d.Node != nil {
			fmt.Fprintf(&out, "%s -> %s", d.Task.GetId(), d.Node.GetId())
			for _, r := range d.Generic {
				fmt.Fprintf(&out, " %s=%d%v", r.GetKind(), r.GetCount(), r.GetIds())
			}
			out.WriteString("\n")
		} else {
			fmt.Fprintf(&out, "%s: %s\n", d.Task.GetId(), d.Reason)
		}
	}
	return out.String()
}

func formatWhy(verdicts []scheduler.Verdict, remedies []scheduler.Remedy) string {
	var out strings.Builder
	for _, v := range verdicts {
		fmt.Fprintf(&out, "%s:", v.Node.GetId())
		for _, s := range v.Scores {
			fmt.Fprintf(&out, " %s=%d", strings.ReplaceAll(s.Name, " ", "-"), s.Value)
		}
		out.WriteString("\n")
		for _, r := range v.Refusals {
			fmt.Fprintf(&out, "    %s: %s | %s\n", r.Filter, r.Reason, r.Remedy.Text)
		}
	}
	for _, r := range remedies {
		fmt.Fprintf(&out, "change: %s (%s)\n", r.Text, r.Command)
	}
	return out.String()
}

func at(text string) time.Time {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return time.Unix(100_000, 0).Add(d)
}

func parse(words []string) (scheduler.Change, error) {
	if len(words) < 2 && words[0] != "require" {
		return scheduler.Change{}, fmt.Errorf("too few words: %v", words)
	}
	settings := map[string]string{}
	for _, word := range words[min(2, len(words)):] {
		key, value, _ := strings.Cut(word, "=") // a constraint has more of them
		settings[key] = value
	}
	switch words[0] {
	case "node":
		return scheduler.Change{Node: parseNode(words[1], settings)}, nil
	case "task":
		return scheduler.Change{Task: parseTask(words[1], settings)}, nil
	case "require":
		return scheduler.Change{Cluster: &api.Cluster{Spec: &api.ClusterSpec{RequiredIsolation: words[1:]}}}, nil
	case "remove-node":
		return scheduler.Change{Node: &api.Node{Id: words[1]}, Deleted: true}, nil
	case "remove-task":
		return scheduler.Change{Task: &api.Task{Id: words[1], ServiceId: "s"}, Deleted: true}, nil
	default:
		return scheduler.Change{}, fmt.Errorf("unknown line %v", words)
	}
}

func number(text string) int64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func parseNode(id string, settings map[string]string) *api.Node {
	n := &api.Node{
		Id: id, Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
		Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE, Annotations: &api.Annotations{Labels: map[string]string{}}},
		Description: &api.NodeDescription{
			Platform:  &api.Platform{Os: "linux", Architecture: "amd64"},
			Resources: &api.Resources{NanoCpus: 4, MemoryBytes: 64},
		},
	}
	for key, value := range settings {
		switch key {
		case "down":
			n.Status.State = api.NodeState_NODE_STATE_DOWN
		case "drain":
			n.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
		case "pause":
			n.Spec.Availability = api.Availability_AVAILABILITY_PAUSE
		case "cpus":
			n.Description.Resources.NanoCpus = number(value)
		case "memory":
			n.Description.Resources.MemoryBytes = number(value)
		case "isolation":
			n.Description.Isolation = strings.Split(value, ",")
		case "volumes":
			n.Description.Volumes = strings.Split(value, ",")
		case "storage":
			n.Description.StorageLimits = true
		case "online":
			n.Description.OnlineCpus = value
		case "label":
			for pair := range strings.SplitSeq(value, ",") {
				k, v, _ := strings.Cut(pair, ":")
				n.Spec.Annotations.Labels[k] = v
			}
		case "gpu":
			n.Description.Resources.Generic = append(n.Description.Resources.Generic, &api.GenericResource{Kind: key, Ids: strings.Split(value, ",")})
		case "fpga":
			n.Description.Resources.Generic = append(n.Description.Resources.Generic, &api.GenericResource{Kind: key, Count: number(value)})
		case "arch":
			n.Description.Platform.Architecture = value
		case "has":
			n.Description.Images = []*api.ImageSummary{{Digest: value, Platform: n.Description.Platform}}
		default:
			panic("node: unknown setting " + key)
		}
	}
	return n
}

func state(text, otherwise string) api.TaskState {
	if text == "" {
		text = otherwise
	}
	return api.TaskState(api.TaskState_value["TASK_STATE_"+strings.ToUpper(text)])
}

func parseTask(id string, settings map[string]string) *api.Task {
	t := &api.Task{
		Id: id, ServiceId: "s", ServiceName: "web", SpecVersion: 1, NodeId: settings["node"], BoundNodeId: settings["bound"],
		Status:       &api.TaskStatus{State: state(settings["state"], "pending"), Err: strings.ReplaceAll(settings["err"], "_", " ")},
		DesiredState: state(settings["desired"], "running"),
		Endpoint:     &api.EndpointSpec{},
		Spec: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: settings["image"]},
			Resources: &api.ResourceRequirements{Reservations: &api.Resources{
				NanoCpus: number(settings["cpus"]), MemoryBytes: number(settings["memory"]),
			}},
			Placement: &api.Placement{MaxReplicas: uint64(number(settings["max"]))},
		},
	}
	if service := settings["service"]; service != "" {
		t.ServiceId, t.ServiceName = service, service
	}
	if version := settings["version"]; version != "" {
		t.SpecVersion = uint64(number(version))
	}
	if when := settings["at"]; when != "" {
		t.Status.Timestamp = timestamppb.New(at(when))
	}
	if port := settings["port"]; port != "" {
		t.Endpoint.Ports = []*api.PortConfig{{PublishedPort: uint32(number(port)), Protocol: api.Protocol_PROTOCOL_TCP}}
	}
	if parts := strings.Split(settings["grant"], ":"); len(parts) == 3 {
		t.Grants = []*api.Grant{{Id: parts[0], Spec: &api.GrantSpec{
			Annotations: &api.Annotations{Name: parts[0]}, NodeLabels: map[string]string{parts[1]: parts[2]},
		}}}
	}
	if _, ok := settings["options"]; ok {
		t.Spec.Container.Privileges = &api.Privileges{}
	}
	if size := settings["storage"]; size != "" {
		t.Spec.Container.StorageSizeBytes = number(size)
	}
	t.Spec.Resources.CpusetCpus = settings["cpuset"]
	if generic := settings["generic"]; generic != "" {
		kind, count, _ := strings.Cut(generic, ":")
		t.Spec.Resources.Reservations.Generic = []*api.GenericResource{{Kind: kind, Count: number(count)}}
	}
	if name := settings["volume"]; name != "" {
		_, anywhere := settings["anywhere"]
		t.Spec.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: name, Target: "/v", VolumeAnywhere: anywhere}}
	}
	t.VolumeNodeId = settings["volumes-on"]
	if given := settings["has"]; given != "" {
		kind, ids, _ := strings.Cut(given, ":")
		t.GenericResources = []*api.GenericResource{{Kind: kind, Ids: strings.Split(ids, ",")}}
	}
	if spread := settings["spread"]; spread != "" {
		for label := range strings.SplitSeq(spread, ",") {
			t.Spec.Placement.Preferences = append(t.Spec.Placement.Preferences, &api.PlacementPreference{Spread: label})
		}
	}
	if strategy := settings["strategy"]; strategy != "" {
		t.Spec.Placement.Strategy = api.PlacementStrategy(api.PlacementStrategy_value["PLACEMENT_STRATEGY_"+strings.ToUpper(strategy)])
	}
	if c := settings["constraint"]; c != "" {
		t.Spec.Placement.Constraints = []string{c}
	}
	return t
}
