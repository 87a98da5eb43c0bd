package statsbroker_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/statsbroker"
)

// agent is the Agent service of one node: it answers, or fails.
type agent struct {
	api.UnimplementedAgentServer
	answer []*api.TaskStats
	err    error
	asked  []string
}

func (a *agent) ReadTaskStats(_ context.Context, r *api.ReadTaskStatsRequest) (*api.ReadTaskStatsResponse, error) {
	a.asked = append(a.asked, r.GetTaskIds()...)
	return &api.ReadTaskStatsResponse{Tasks: a.answer}, a.err
}

// old is an agent of a version without statistics.
type old struct{ api.UnimplementedAgentServer }

func serve(t *testing.T, server api.AgentServer) *grpctest.Listener {
	t.Helper()
	listener := grpctest.Listen()
	s := grpc.NewServer()
	api.RegisterAgentServer(s, server)
	grpctest.Serve(t, s, listener)
	return listener
}

func TestReadStats_AsksEachNodeAndSaysWhatIsMissing(t *testing.T) {
	good := &agent{answer: []*api.TaskStats{
		{TaskId: "t2", Pids: 2},
		{TaskId: "t1", Pids: 1, ServiceName: "lie", NodeId: "lie"},
		{TaskId: "of another node", Pids: 9},
		{TaskId: "t1", Pids: 8},
	}}
	listeners := map[string]*grpctest.Listener{
		"good": serve(t, good), "old": serve(t, old{}), "broken": serve(t, &agent{err: status.Error(codes.Internal, "error 17")}),
	}
	broker, err := statsbroker.New(func(address, nodeID string, _ ...grpc.DialOption) (*grpc.ClientConn, error) {
		if address != nodeID+":2377" {
			t.Errorf("dialled %s as node %s", address, nodeID)
		}
		return grpctest.NewClient(func(ctx context.Context) (net.Conn, error) {
			listener := listeners[nodeID]
			if listener == nil {
				return nil, errors.New("no route")
			}
			return listener.DialContext(ctx)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]*api.Node{}
	for _, id := range []string{"good", "old", "broken", "away", "down", "new"} {
		nodes[id] = &api.Node{Id: id, Description: &api.NodeDescription{Hostname: "host-" + id, PeerAddress: id + ":2377"}}
	}
	nodes["down"].Status = &api.NodeStatus{State: api.NodeState_NODE_STATE_DOWN}
	nodes["new"].Description.PeerAddress = ""
	var tasks []*api.Task
	for _, task := range [][2]string{
		{"t1", "good"}, {"t2", "good"}, {"t3", "good"}, {"t4", "old"}, {"t5", "broken"}, {"t6", "away"}, {"t7", "down"}, {"t8", "new"}, {"t9", "removed"},
	} {
		tasks = append(tasks, &api.Task{Id: task[0], NodeId: task[1], ServiceName: "web", Slot: uint64(len(tasks) + 1)})
	}
	got := broker.ReadStats(t.Context(), tasks, nodes)
	want := &api.ReadStatsResponse{
		Tasks: []*api.TaskStats{
			{TaskId: "t1", Pids: 1, NodeId: "good", NodeHostname: "host-good", ServiceName: "web", Slot: 1},
			{TaskId: "t2", Pids: 2, NodeId: "good", NodeHostname: "host-good", ServiceName: "web", Slot: 2},
		},
		Gaps: []*api.StatsGap{
			{NodeId: "away", Reason: "the node can't be reached"},
			{NodeId: "broken", Reason: "error 17"},
			{NodeId: "down", Reason: "the node is down"},
			{NodeId: "new", Reason: "the node has not said where it can be reached"},
			{NodeId: "old", Reason: "the node runs a version that keeps no statistics: upgrade it"},
			{NodeId: "removed", Reason: "the node was removed from the swarm"},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"t1", "t2", "t3"}, good.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}
