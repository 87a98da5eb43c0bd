package rolemanager_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/rolemanager"
	"github.com/skep-io/skep/store"
)

// script is a cluster that a script changes and the core manages.
type script struct {
	rolemanager.State
}

// TestStep runs the scripts in testdata. A script changes nodes and members, and "step" prints the effects and performs them.
func TestStep(t *testing.T) {
	s := new(script)
	datadriven.RunTest(t, "testdata/roles.txt", func(t *testing.T, d *datadriven.TestData) string {
		for _, line := range append([]string{d.Cmd + argsOf(d)}, strings.Split(d.Input, "\n")...) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			if fields[0] == "step" {
				return s.step()
			}
			s.change(t, fields[0], fields[1], fields[2:])
		}
		return ""
	})
}

func argsOf(d *datadriven.TestData) string {
	var b strings.Builder
	for _, arg := range d.CmdArgs {
		b.WriteString(" " + arg.String())
	}
	return b.String()
}

func (s *script) change(t *testing.T, verb, id string, args []string) {
	t.Helper()
	switch verb {
	case "node":
		s.node(t, id, args)
	case "remove":
		s.Nodes = slices.DeleteFunc(s.Nodes, func(n *api.Node) bool { return n.GetId() == id })
	case "member":
		s.Members = slices.DeleteFunc(s.Members, func(m store.MemberStatus) bool { return m.Member.GetNodeId() == id })
		s.Members = append(s.Members, store.MemberStatus{
			Member:    &api.Member{RaftId: raftID(id), NodeId: id, Learner: slices.Contains(args, "learner")},
			Reachable: !slices.Contains(args, "unreachable"),
		})
		slices.SortFunc(s.Members, func(a, b store.MemberStatus) int { return int(a.Member.GetRaftId()) - int(b.Member.GetRaftId()) })
		if slices.Contains(args, "leader") {
			s.lead(id)
		}
	case "leader":
		s.lead(id)
	default:
		t.Fatalf("no such command: %s", verb)
	}
}

func (s *script) lead(id string) {
	s.Self = id
	for i := range s.Members {
		s.Members[i].Leader = s.Members[i].Member.GetNodeId() == id
	}
}

// raftID returns 1 to 3 for m1 to m3, and 4 for w1.
func raftID(id string) uint64 {
	if id[0] == 'w' {
		return uint64(id[1]-'0') + 3
	}
	return uint64(id[1] - '0')
}

func (s *script) node(t *testing.T, id string, args []string) {
	t.Helper()
	i := slices.IndexFunc(s.Nodes, func(n *api.Node) bool { return n.GetId() == id })
	if i < 0 {
		i = len(s.Nodes)
		s.Nodes = append(s.Nodes, &api.Node{Id: id, Spec: &api.NodeSpec{}})
	}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		role := map[string]api.Role{"worker": api.Role_ROLE_WORKER, "manager": api.Role_ROLE_MANAGER}[value]
		switch key {
		case "desired":
			s.Nodes[i].Spec.DesiredRole = role
		case "role":
			s.Nodes[i].Role = role
		default:
			t.Fatalf("no such field: %s", key)
		}
	}
}

// step prints what is to be done, and does it.
func (s *script) step() string {
	effects := rolemanager.Step(s.State)
	if len(effects) == 0 {
		return "ok\n"
	}
	var b strings.Builder
	for _, effect := range effects {
		fmt.Fprintln(&b, effect)
		switch e := effect.(type) {
		case rolemanager.SetRole:
			for _, n := range s.Nodes {
				if n.GetId() == e.NodeID {
					n.Role = e.Role
				}
			}
		case rolemanager.RemoveMember:
			s.Members = slices.DeleteFunc(s.Members, func(m store.MemberStatus) bool { return m.Member.GetRaftId() == e.RaftID })
		}
	}
	return b.String()
}
