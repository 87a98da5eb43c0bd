package backup

import (
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// log checks what the store remembers of its log.
func (c *checker) log() {
	for _, v := range c.state.GetKindVersions() {
		kind := object.Kind(v.GetKind())
		switch {
		case !kind.Valid():
			c.add("the version of kind %d is kept, which this version does not know", v.GetKind())
		case v.GetVersion() > c.index:
			c.add("the last change to %vs is at index %d, and the backup is of index %d", kind, v.GetVersion(), c.index)
		case v.GetVersion() < c.newest[kind]:
			c.add("the last change to %vs is at index %d, and one has version %d", kind, v.GetVersion(), c.newest[kind])
		}
	}
	for _, r := range slices.Concat(c.state.GetNamedRequests(), c.state.GetOwnRequests()) {
		if r.GetRequestId() == "" || r.GetIndex() > c.index {
			c.add("request %q: it was applied at index %d, and the backup is of index %d", r.GetRequestId(), r.GetIndex(), c.index)
		}
	}
}

// members checks the Raft group. A node may have two members, one of them a learner: its manager lost its disk and is being replaced.
func (c *checker) members() {
	ids, voters := map[uint64]bool{}, map[string]bool{}
	for _, m := range c.state.GetMembers() {
		switch {
		case m.GetRaftId() == 0 || m.GetNodeId() == "" || m.GetAddress() == "":
			c.add("member %d: its raft id, node or address is missing", m.GetRaftId())
		case ids[m.GetRaftId()]:
			c.add("member %d: it is there twice", m.GetRaftId())
		case !m.GetLearner() && voters[m.GetNodeId()]:
			c.add("member %d: node %s has another member that votes", m.GetRaftId(), m.GetNodeId())
		case slices.Contains(c.state.GetRemovedRaftIds(), m.GetRaftId()):
			c.add("member %d: it was removed", m.GetRaftId())
		}
		ids[m.GetRaftId()] = true
		if !m.GetLearner() {
			voters[m.GetNodeId()] = true
		}
	}
	if len(voters) == 0 {
		c.add("there is no member that votes")
	}
}

// cluster checks that the keys in the cluster object are whole, and belong together.
func (c *checker) cluster(cluster *api.Cluster) {
	id := cluster.GetId()
	if id != c.state.GetClusterId() {
		c.add("cluster %s: the state is of cluster %s", id, c.state.GetClusterId())
	}
	if cluster.GetSpec() == nil {
		c.add("cluster %s: it has no spec", id)
	}
	root, err := ca.OpenRoot(cluster.GetRootCa(), nil)
	if err != nil {
		c.add("cluster %s: root CA: %v", id, err)
	} else if _, err := ca.OpenIssuer(cluster.GetRootCa(), nil); err != nil {
		c.add("cluster %s: rotation of the root CA: %v", id, err)
	}
	for _, row := range []struct{ role, text string }{
		{"worker", cluster.GetJoinTokens().GetWorker()}, {"manager", cluster.GetJoinTokens().GetManager()},
	} {
		switch t, err := token.Parse(row.text); {
		case err != nil:
			c.add("cluster %s: the join token of %ss is none", id, row.role)
		case root != nil && t.Digest() != root.Digest():
			c.add("cluster %s: the join token of %ss is for another root CA", id, row.role)
		}
	}
	if key := cluster.GetBackupKey(); key != "" {
		if _, err := seal.ParseBackupKey(key); err != nil {
			c.add("cluster %s: its backup key is none", id)
		}
	}
	if key := cluster.GetUnlockKey(); key != "" || cluster.GetSpec().GetAutolock() {
		if _, err := seal.ParseUnlockKey(key); err != nil {
			c.add("cluster %s: its unlock key is none", id)
		}
	}
}

// references checks what objects say of each other.
func (c *checker) references() {
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindService])) {
		c.service(c.objects[object.KindService][id].(*api.Service))
	}
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindTask])) {
		c.task(c.objects[object.KindTask][id].(*api.Task))
	}
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindSecret])) {
		if len(c.objects[object.KindSecret][id].(*api.Secret).GetSpec().GetData()) == 0 {
			c.add("secret %s: it has no value", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindConfig])) {
		if len(c.objects[object.KindConfig][id].(*api.Config).GetSpec().GetData()) == 0 {
			c.add("config %s: it has no value", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindNode])) {
		node := c.objects[object.KindNode][id].(*api.Node)
		for _, role := range []api.Role{node.GetRole(), node.GetSpec().GetDesiredRole()} {
			if role != api.Role_ROLE_WORKER && role != api.Role_ROLE_MANAGER {
				c.add("node %s: it has the role %d", id, role)
			}
		}
	}
}

func (c *checker) service(s *api.Service) {
	if s.GetSpec().GetTask().GetContainer() == nil {
		c.add("service %s: it has no container", s.GetId())
	}
	c.values(s, object.KindSecret, s.GetSpec().GetTask().GetContainer().GetSecrets())
	c.values(s, object.KindConfig, s.GetSpec().GetTask().GetContainer().GetConfigs())
}

// values checks what a service says of its secrets or configs.
func (c *checker) values(s *api.Service, kind object.Kind, references []*api.SecretReference) {
	for _, r := range references {
		value, ok := c.objects[kind][r.GetSecretId()]
		switch {
		case !ok:
			c.add("service %s: its %s %s (%s) is not there", s.GetId(), kind, r.GetSecretId(), r.GetSecretName())
		case object.Name(value) != r.GetSecretName():
			c.add("service %s: its %s %s is called %q there and %q here", s.GetId(), kind, r.GetSecretId(), object.Name(value), r.GetSecretName())
		}
	}
}

func (c *checker) task(t *api.Task) {
	if t.GetServiceId() == "" {
		c.add("task %s: it belongs to no service", t.GetId())
	}
	state := t.GetStatus().GetState()
	if state == api.TaskState_TASK_STATE_UNSPECIFIED || t.GetDesiredState() == api.TaskState_TASK_STATE_UNSPECIFIED {
		c.add("task %s: its state or desired state is missing", t.GetId())
	}
	if state >= api.TaskState_TASK_STATE_ASSIGNED && state <= api.TaskState_TASK_STATE_RUNNING && t.GetNodeId() == "" {
		c.add("task %s: it is %s on no node", t.GetId(), state)
	}
	if service, ok := c.objects[object.KindService][t.GetServiceId()].(*api.Service); ok && t.GetSpecVersion() > service.GetSpecVersion() {
		c.add("task %s: it has spec version %d, and service %s has %d", t.GetId(), t.GetSpecVersion(), service.GetId(), service.GetSpecVersion())
	}
}
