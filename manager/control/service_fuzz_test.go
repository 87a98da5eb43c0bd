package control

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// FuzzServiceSpec feeds specs as they come over the wire to what completes and checks them. Whatever comes, nothing breaks, a
// complete spec is not completed again (C3), and a refusal is the caller's fault.
func FuzzServiceSpec(f *testing.F) {
	for _, spec := range []*api.ServiceSpec{
		{},
		{Annotations: &api.Annotations{Name: "web"}, Task: &api.TaskSpec{Container: &api.ContainerSpec{
			Image: "app:1", CapabilityAdd: []string{"net_admin"}, StopSignal: "SIGUSR1", Env: []string{"A=b"}, Dir: "/x",
			Secrets: []*api.SecretReference{{SecretName: "db", Target: &api.SecretTarget{Name: "../x"}}},
			Mounts:  []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x"}},
		}}},
		{Update: &api.UpdateConfig{Delay: durationpb.New(-1), Order: 77}, Replicated: &api.ReplicatedService{Replicas: 1 << 60}},
		{Endpoint: &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80}, {TargetPort: 1 << 31}}}},
		{Task: &api.TaskSpec{Placement: &api.Placement{Constraints: []string{"node.role==worker"}}}},
	} {
		seed, err := proto.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		spec := new(api.ServiceSpec)
		if proto.Unmarshal(wire, spec) != nil {
			return
		}
		fillService(spec)
		once := proto.CloneOf(spec)
		fillService(spec)
		if !proto.Equal(once, spec) {
			t.Errorf("completed twice:\n%v\n%v", once, spec)
		}
		if err := validateService(spec); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("refused with %v: %v", fault.KindOf(err), err)
		}
		if !proto.Equal(once, spec) {
			t.Error("the check changed the spec")
		}
	})
}
