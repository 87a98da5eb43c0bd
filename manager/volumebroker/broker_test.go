package volumebroker_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/volumebroker"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent has the volumes of one node.
type agent struct {
	api.UnimplementedNodeVolumesServer
	mu      sync.Mutex
	volumes []*api.Volume
	labels  map[string]string
}

func (a *agent) CreateNodeVolume(_ context.Context, r *api.CreateNodeVolumeRequest) (*api.CreateNodeVolumeResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.labels = r.GetLabels()
	a.volumes = append(a.volumes, &api.Volume{Name: r.GetName(), NodeId: "a lie"})
	return &api.CreateNodeVolumeResponse{Volume: a.volumes[len(a.volumes)-1]}, nil
}

func (a *agent) ListNodeVolumes(context.Context, *api.ListNodeVolumesRequest) (*api.ListNodeVolumesResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &api.ListNodeVolumesResponse{Volumes: a.volumes}, nil // also those that were not asked for
}

func (a *agent) RemoveNodeVolume(_ context.Context, r *api.RemoveNodeVolumeRequest) (*api.RemoveNodeVolumeResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.GetName() == "busy" {
		return nil, fault.Status(fault.New(fault.Precondition, "volume busy is in use by task t1 on this node"))
	}
	a.volumes = slices.DeleteFunc(a.volumes, func(v *api.Volume) bool { return v.GetName() == r.GetName() })
	return &api.RemoveNodeVolumeResponse{}, nil
}

// swarm has nodes with volumes.
type swarm struct {
	t         *testing.T
	store     *store.Store
	listeners map[string]*grpctest.Listener
	// takes is how long it takes to look an address up.
	takes   time.Duration
	audited []string
	*volumebroker.Broker
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	s := &swarm{t: t, store: storetest.New(t), listeners: map[string]*grpctest.Listener{}}
	var err error
	s.Broker, err = volumebroker.New(volumebroker.Config{
		NodeID: "n1", Store: s.store, Dial: s.dial,
		About: func(_ context.Context, about volumebroker.Subject) {
			s.audited = append(s.audited, about.NodeID+" "+about.Name+" "+about.Summary)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *swarm) dial(_, nodeID string, _ ...grpc.DialOption) (*grpc.ClientConn, error) {
	time.Sleep(s.takes)
	return grpctest.NewClient(func(ctx context.Context) (net.Conn, error) {
		listener := s.listeners[nodeID]
		if nodeID == "silent" { // the network swallows what is sent there
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		if listener == nil {
			return nil, errors.New("nobody is there")
		}
		return listener.DialContext(ctx)
	})
}

// node adds a node with volumes; register is nil for one that can't be reached.
func (s *swarm) node(id string, state api.NodeState, register func(*grpc.Server)) {
	s.t.Helper()
	storetest.Create(s.t, s.store, &api.Node{
		Id: id, Status: &api.NodeStatus{State: state}, Description: &api.NodeDescription{Hostname: "host-" + id, PeerAddress: id + ":1"},
	})
	if register == nil {
		return
	}
	listener := grpctest.Listen()
	s.listeners[id] = listener
	server := grpc.NewServer()
	register(server)
	grpctest.Serve(s.t, server, listener)
}

func (s *swarm) agent(id string, names ...string) *agent {
	s.t.Helper()
	a := &agent{}
	for _, name := range names {
		a.volumes = append(a.volumes, &api.Volume{Name: name, NodeId: "a lie", NodeHostname: "a lie"})
	}
	s.node(id, api.NodeState_NODE_STATE_READY, func(server *grpc.Server) { api.RegisterNodeVolumesServer(server, a) })
	return a
}

// list returns what there is as NAME@HOSTNAME, and gaps as HOSTNAME: REASON.
func (s *swarm) list(r *api.ListVolumesRequest) (out []string) {
	s.t.Helper()
	answer, err := s.ListVolumes(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range answer.GetVolumes() {
		out = append(out, v.GetName()+"@"+v.GetNodeHostname())
	}
	for _, gap := range answer.GetGaps() {
		out = append(out, gap.GetNodeHostname()+": "+gap.GetReason())
	}
	return out
}

func TestListVolumes_OfAllNodesAndWhoIsMissing(t *testing.T) {
	s := newSwarm(t)
	s.agent("n1", "db", "cache")
	s.agent("n2", "db", "../no-name", "x")
	s.node("n3", api.NodeState_NODE_STATE_DOWN, nil)
	s.node("n4", api.NodeState_NODE_STATE_READY, nil)
	s.node("n5", api.NodeState_NODE_STATE_READY, func(*grpc.Server) {}) // of a version that knows no volumes
	missing := []string{
		"host-n3: the node is down", "host-n4: the node does not accept the connection", "host-n5: the node runs a version that does not tell of volumes: upgrade it",
	}
	for _, test := range []struct {
		request *api.ListVolumesRequest
		want    []string
	}{
		{&api.ListVolumesRequest{}, append([]string{"cache@host-n1", "db@host-n1", "db@host-n2"}, missing...)},
		{&api.ListVolumesRequest{Volume: "cache"}, append([]string{"cache@host-n1"}, missing...)},
		{&api.ListVolumesRequest{Node: "host-n2"}, []string{"db@host-n2"}},
	} {
		if diff := cmp.Diff(test.want, s.list(test.request)); diff != "" {
			t.Errorf("%v: %s", test.request, diff)
		}
	}
	for _, r := range []*api.ListVolumesRequest{{Volume: "../etc"}, {Node: "nothere"}} {
		if _, err := s.ListVolumes(t.Context(), r); err == nil {
			t.Errorf("%v: no error", r)
		}
	}
}

// TestListVolumes_SaysWhoIsSilent: also when the time for the whole question is over before that for the connection.
func TestListVolumes_SaysWhoIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.takes = time.Second
		s.node("silent", api.NodeState_NODE_STATE_READY, nil)
		began := time.Now()
		if diff := cmp.Diff([]string{"host-silent: the node does not answer"}, s.list(&api.ListVolumesRequest{})); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("after %v, want 5s", took)
		}
	})
}

func TestCreateVolume_OnTheNodeThatIsMeant(t *testing.T) {
	s := newSwarm(t)
	s.agent("n1")
	other := s.agent("n2")
	if _, err := s.CreateVolume(t.Context(), &api.CreateVolumeRequest{Volume: "here"}); err != nil {
		t.Error(err)
	}
	labels := map[string]string{"tier": "db"}
	made, err := s.CreateVolume(t.Context(), &api.CreateVolumeRequest{Volume: "there", Node: "host-n2", Labels: labels})
	if err != nil || made.GetVolume().GetNodeId() != "n2" {
		t.Errorf("%v, %v", made, err)
	}
	if diff := cmp.Diff(labels, other.labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"here@host-n1", "there@host-n2"}, s.list(&api.ListVolumesRequest{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"n1 here created on node host-n1", "n2 there created on node host-n2"}, s.audited); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []*api.CreateVolumeRequest{
		{Volume: ""}, {Volume: ".x"}, {Volume: "ok", Labels: map[string]string{" ": ""}}, {Volume: "ok", Labels: map[string]string{"a": strings.Repeat("x", 4096)}},
	} {
		if _, err := s.CreateVolume(t.Context(), bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.50v: %v", bad, err)
		}
	}
	if _, err := s.CreateVolume(t.Context(), &api.CreateVolumeRequest{Volume: "ok", Node: "nothere"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("on a node that is not there: %v", err)
	}
}

func TestRemoveVolume_GuessesNothing(t *testing.T) {
	s := newSwarm(t)
	s.agent("n1", "db", "one", "busy")
	s.agent("n2", "db")
	remove := func(name, node string) error {
		_, err := s.RemoveVolume(t.Context(), &api.RemoveVolumeRequest{Volume: name, Node: node})
		return err
	}
	for _, test := range []struct {
		name, node string
		want       fault.Kind
		text       string
	}{
		{"db", "", fault.Invalid, "2 nodes have a volume db (host-n1, host-n2): say by --node"},
		{"nothere", "", fault.NotFound, "no such volume: nothere"},
		{"busy", "", fault.Precondition, "in use by task t1"},
		{"../x", "", fault.Invalid, "is not 2 to 128"},
		{"db", "nothere", fault.NotFound, "node nothere not found"},
	} {
		if err := remove(test.name, test.node); fault.KindOf(err) != test.want || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s of %q: %v", test.name, test.node, err)
		}
	}
	if err := errors.Join(remove("one", ""), remove("db", "host-n2")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"busy@host-n1", "db@host-n1"}, s.list(&api.ListVolumesRequest{})); diff != "" {
		t.Error(diff)
	}
	s.node("n3", api.NodeState_NODE_STATE_DOWN, nil) // it may have one, too
	if err := remove("db", ""); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "host-n3") {
		t.Errorf("with a node that is down: %v", err)
	}
	if err := remove("db", "n1"); err != nil {
		t.Error(err)
	}
	if err := remove("db", "n3"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("of a node that is down: %v", err)
	}
}
