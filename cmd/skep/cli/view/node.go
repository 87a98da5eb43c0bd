package view

import (
	"fmt"
	"time"

	"github.com/skep-io/skep/api"
)

// Node is a machine of the swarm.
type Node struct {
	Meta
	Spec NodeSpec
	// Role is what the node's certificate says; it follows Spec.Role.
	Role          string
	Description   NodeDescription
	Status        NodeStatus
	ManagerStatus *ManagerStatus `json:",omitempty"`
	// Approval is a person's decision about the node, or nil where none was needed.
	Approval *Approval `json:",omitempty"`
}

// Approval is a person's decision about a node that joins.
type Approval struct {
	// State is pending or approved.
	State          string
	KeyFingerprint string
}

// Waits reports whether a person has to let the node in.
func (n Node) Waits() bool { return n.Approval != nil && n.Approval.State == "pending" }

// NodeSpec is what people may change.
type NodeSpec struct {
	Name         string `json:",omitempty"`
	Labels       map[string]string
	Role         string
	Availability string
	// DrainTimeout is in nanoseconds, or nil for a drain that may take for ever. Docker has none.
	DrainTimeout *time.Duration `json:",omitempty"`
}

// NodeDescription is what the node says of itself.
type NodeDescription struct {
	Hostname  string
	Platform  Platform
	Resources Resources
	Engine    Engine
	// Isolation is what isolates every container on the node, unless its service says otherwise. Docker has none.
	Isolation []string `json:",omitempty"`
	// StorageLimits says whether containers can be held to a --storage-size there. Docker has none.
	StorageLimits bool `json:",omitempty"`
	// OnlineCPUs are the processors that --cpuset-cpus can ask for there. Docker has none.
	OnlineCPUs string `json:",omitempty"`
	// Volumes are the names of those on the node, 512 at most. Docker has none.
	Volumes []string `json:",omitempty"`
	// Address is where the node serves other nodes, host:port.
	Address string `json:",omitempty"`
}

// Platform is an operating system and an architecture.
type Platform struct {
	Architecture string
	OS           string
}

// Resources are CPUs in billionths, memory in bytes, processes.
type Resources struct {
	NanoCPUs    int64 `json:",omitempty"`
	MemoryBytes int64 `json:",omitempty"`
	Pids        int64 `json:",omitempty"`
	// GenericResources are numbers of things, or certain ones of them.
	GenericResources []GenericResource `json:",omitempty"`
}

// GenericResource has one of both: one thing with an id, or a number of them.
type GenericResource struct {
	NamedResourceSpec    *NamedResource    `json:",omitempty"`
	DiscreteResourceSpec *DiscreteResource `json:",omitempty"`
}

// NamedResource is one thing of a kind.
type NamedResource struct{ Kind, Value string }

// DiscreteResource is a number of things of a kind.
type DiscreteResource struct {
	Kind  string
	Value int64
}

// String returns it as it is typed.
func (g GenericResource) String() string {
	if n := g.NamedResourceSpec; n != nil {
		return n.Kind + "=" + n.Value
	}
	if d := g.DiscreteResourceSpec; d != nil {
		return fmt.Sprintf("%s=%d", d.Kind, d.Value)
	}
	return ""
}

func genericOf(resources []*api.GenericResource) []GenericResource {
	var out []GenericResource
	for _, r := range resources {
		for _, id := range r.GetIds() {
			out = append(out, GenericResource{NamedResourceSpec: &NamedResource{r.GetKind(), id}})
		}
		if r.GetCount() > 0 {
			out = append(out, GenericResource{DiscreteResourceSpec: &DiscreteResource{r.GetKind(), r.GetCount()}})
		}
	}
	return out
}

// Engine is the node's daemon.
type Engine struct {
	EngineVersion string
	Labels        map[string]string `json:",omitempty"`
}

// NodeStatus is what the managers found out.
type NodeStatus struct {
	State   string
	Message string `json:",omitempty"`
	Addr    string
	// Drain is how far the drain of a node is that is drained. Docker has none.
	Drain *Drain `json:",omitempty"`
}

// Drain is what is left on a node.
type Drain struct {
	// State is "drained", or "draining" and how many tasks are left.
	State string
	// Since is when the drain began with its timeout, or nil for a node that joined so.
	Since     *time.Time `json:",omitempty"`
	TasksLeft uint32
	Services  []DrainedService `json:",omitempty"`
}

// DrainedService is a service with tasks on a node that is drained.
type DrainedService struct {
	ID, Name  string
	TasksLeft uint32
	// Held is why they do not leave.
	Held string `json:",omitempty"`
}

// String says how many are left, and why.
func (s DrainedService) String() string {
	text := tasksLeft(s.TasksLeft)
	if s.Held != "" {
		text += ": " + s.Held
	}
	return text
}

func tasksLeft(n uint32) string {
	if n == 1 {
		return "1 task left"
	}
	return fmt.Sprintf("%d tasks left", n)
}

// NewDrain shows how far a drain is, or nil.
func NewDrain(status *api.NodeStatus) *Drain {
	p := status.GetDrain()
	if p == nil {
		return nil
	}
	out := &Drain{State: "drained", TasksLeft: p.GetTasksLeft()}
	if p.GetTasksLeft() > 0 {
		out.State = "draining, " + tasksLeft(p.GetTasksLeft())
	}
	if at := status.GetDrainBeganAt(); at != nil {
		since := at.AsTime()
		out.Since = &since
	}
	for _, s := range p.GetServices() {
		out.Services = append(out.Services, DrainedService{ID: s.GetServiceId(), Name: s.GetServiceName(), TasksLeft: s.GetTasksLeft(), Held: s.GetHeld()})
	}
	return out
}

// ManagerStatus is a manager's place among the managers.
type ManagerStatus struct {
	Leader       bool `json:",omitempty"`
	Reachability string
	Addr         string
}

// NewNode shows a node.
func NewNode(n *api.Node) Node {
	spec, description, status := n.GetSpec(), n.GetDescription(), n.GetStatus()
	out := Node{
		Meta: metaOf(n.GetId(), n.GetMeta()),
		Spec: NodeSpec{
			Name: spec.GetAnnotations().GetName(), Labels: labelsOf(spec.GetAnnotations().GetLabels()),
			Role: Role(spec.GetDesiredRole()), Availability: Availability(spec.GetAvailability()),
		},
		Role: Role(n.GetRole()),
		Description: NodeDescription{
			Hostname: description.GetHostname(), Platform: platformOf(description.GetPlatform()),
			Resources: resourcesOf(description.GetResources()),
			Engine:    Engine{EngineVersion: description.GetEngineVersion(), Labels: description.GetEngineLabels()},
			Address:   description.GetPeerAddress(),
			Isolation: description.GetIsolation(), StorageLimits: description.GetStorageLimits(), OnlineCPUs: description.GetOnlineCpus(), Volumes: description.GetVolumes(),
		},
		Status: NodeStatus{State: NodeState(status.GetState()), Message: status.GetMessage(), Addr: status.GetAddress(), Drain: NewDrain(status)},
	}
	if d := spec.GetDrainTimeout(); d != nil {
		timeout := d.AsDuration()
		out.Spec.DrainTimeout = &timeout
	}
	if n.GetCompromise() != nil {
		out.Status.State = "compromised"
	}
	if manager := n.GetManagerStatus(); manager != nil {
		out.ManagerStatus = &ManagerStatus{
			Leader: manager.GetLeader(), Reachability: Reachability(manager.GetReachability()), Addr: manager.GetAddress(),
		}
	}
	if a := n.GetApproval(); a != nil {
		out.Approval = &Approval{State: ApprovalState(a.GetState()), KeyFingerprint: a.GetKeyFingerprint()}
	}
	return out
}

func platformOf(p *api.Platform) Platform {
	return Platform{Architecture: p.GetArchitecture(), OS: p.GetOs()}
}

func resourcesOf(r *api.Resources) Resources {
	return Resources{NanoCPUs: r.GetNanoCpus(), MemoryBytes: r.GetMemoryBytes(), Pids: r.GetPids(), GenericResources: genericOf(r.GetGeneric())}
}
