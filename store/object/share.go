package object

import (
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// ShareTask has a task use the memory of another one for what both have alike, above all the spec, which all tasks of a service have. From
// then on neither may be changed.
func ShareTask(t, with *api.Task) {
	alike(&t.ServiceId, with.GetServiceId())
	alike(&t.ServiceName, with.GetServiceName())
	alike(&t.NodeId, with.GetNodeId())
	equal(&t.Spec, with.GetSpec())
	equal(&t.Endpoint, with.GetEndpoint())
	equal(&t.Status, with.GetStatus())
	for i := range min(len(t.Grants), len(with.GetGrants())) {
		equal(&t.Grants[i], with.GetGrants()[i])
	}
}

// ShareService is ShareTask for two versions of a service: so that it goes on to share its spec with its tasks.
func ShareService(s, with *api.Service) {
	equal(&s.Spec, with.GetSpec())
	if s.GetSpec() != nil && with.GetSpec() != nil { // as after it was scaled
		equal(&s.Spec.Task, with.Spec.GetTask())
		equal(&s.Spec.Endpoint, with.Spec.GetEndpoint())
	}
	equal(&s.PreviousSpec, with.GetPreviousSpec())
	equal(&s.PreviousSpec, with.GetSpec())
}

func alike(to *string, other string) {
	if *to == other {
		*to = other
	}
}

func equal[M interface {
	comparable
	proto.Message
}](to *M, other M) {
	if *to != other && proto.Equal(*to, other) {
		*to = other
	}
}
