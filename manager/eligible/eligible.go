// Package eligible says on which nodes a service runs that is to run on every node.
//
// It does not ask whether a node has room: that is the scheduler's, and changes with every task.
//
// Everything here but [Read] is a pure function and safe for concurrent use. Arguments are never changed.
package eligible

import (
	"errors"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
	"github.com/skep-io/skep/store"
)

// Nodes are the nodes of a service, by id.
type Nodes struct {
	// Keep are those whose tasks of the service stay. A node that is down or paused is among them.
	Keep map[string]*api.Node
	// Take are those of Keep that get a task if they have none, in the order of their ids.
	Take []string
}

// Read returns the nodes of a service as the store has them.
func Read(tx store.ReadTx, s *api.Service) (Nodes, error) {
	var grants []*api.Grant
	for _, reference := range s.GetSpec().GetTask().GetContainer().GetGrants() {
		grant, err := store.Get[*api.Grant](tx, reference.GetGrantId())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return Nodes{}, err
		}
		grants = append(grants, grant)
	}
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return Nodes{}, err
	}
	cluster, err := store.TheCluster(tx)
	return For(s, grants, nodes, cluster.GetSpec().GetRequiredIsolation()), err
}

// For returns the nodes of a service with a task on every node. grants are those that its spec names, required is what the swarm
// wants to isolate containers.
func For(s *api.Service, grants []*api.Grant, nodes []*api.Node, required []string) Nodes {
	out := Nodes{Keep: map[string]*api.Node{}}
	set, err := constraint.Parse(slices.Concat(s.GetSpec().GetTask().GetPlacement().GetConstraints(), constraint.OfGrants(grants)))
	if err != nil {
		return out // the server refuses such a spec
	}
	platforms := platformsOf(s.GetSpec().GetTask().GetContainer().GetImage(), nodes)
	for _, n := range nodes {
		if n.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN || ShutOut(n) || !set.Match(n) {
			continue
		}
		out.Keep[n.GetId()] = n
		if takesTasks(n) && isolates(n, required) && Runs(n, platforms) {
			out.Take = append(out.Take, n.GetId())
		}
	}
	slices.Sort(out.Take)
	return out
}

// Takes reports whether a node is among Take.
func (n Nodes) Takes(id string) bool {
	_, takes := slices.BinarySearch(n.Take, id)
	return takes
}

// Wanted returns how many tasks the service is to have now: those of nodes that get one, and those that nodes keep which answer.
func (n Nodes) Wanted(tasks []*api.Task) uint64 {
	wanted := map[string]bool{}
	for _, id := range n.Take {
		wanted[id] = true
	}
	for _, t := range tasks {
		node := n.Keep[t.GetBoundNodeId()]
		if node != nil && node.GetStatus().GetState() != api.NodeState_NODE_STATE_DOWN && t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING {
			wanted[node.GetId()] = true
		}
	}
	return uint64(len(wanted))
}

// ShutOut reports whether a node has no say in the swarm: it waits for a person, or is compromised.
func ShutOut(n *api.Node) bool {
	return n.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING || n.GetCompromise() != nil
}

// takesTasks reports whether a node is to get new tasks: now, or as soon as a new leader has heard of it.
func takesTasks(n *api.Node) bool {
	if n.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_ACTIVE {
		return false
	}
	state := n.GetStatus().GetState()
	return state == api.NodeState_NODE_STATE_READY || state == api.NodeState_NODE_STATE_UNKNOWN && n.GetDescription() != nil
}

func isolates(n *api.Node, required []string) bool {
	return !slices.ContainsFunc(required, func(name string) bool { return !slices.Contains(n.GetDescription().GetIsolation(), name) })
}

// Runs reports whether a node has one of the platforms; without any, every node does.
func Runs(n *api.Node, platforms []*api.Platform) bool {
	own := n.GetDescription().GetPlatform()
	return len(platforms) == 0 || slices.ContainsFunc(platforms, func(p *api.Platform) bool {
		return p.GetOs() == own.GetOs() && p.GetArchitecture() == own.GetArchitecture()
	})
}

// platformsOf returns what nodes say about the platforms of a pinned image.
func platformsOf(image string, nodes []*api.Node) (platforms []*api.Platform) {
	digest := Digest(image)
	if digest == "" {
		return nil
	}
	for _, n := range nodes {
		for _, i := range n.GetDescription().GetImages() {
			if i.GetDigest() == digest && i.GetPlatform().GetOs() != "" {
				platforms = append(platforms, i.GetPlatform())
			}
		}
	}
	return platforms
}

// Digest returns the digest of a pinned reference, name:tag@digest or a digest alone, or "".
func Digest(image string) string {
	_, digest, found := strings.Cut(image, "@")
	if !found && strings.HasPrefix(image, "sha256:") {
		return image
	}
	return digest
}
