package control_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// swarm is a control server behind its gRPC door, on a local store.
type swarm struct {
	api.ControlClient
	server *control.Server
	store  *store.Store
	status store.Status
	// removeMember takes a manager out of the group; nil does nothing.
	removeMember func(raftID uint64) error
}

// noLogs is a LogReader without logs.
type noLogs struct{}

func (noLogs) ReadLogs(context.Context, *api.ReadLogsRequest, func(*api.ReadLogsResponse) error) error {
	return nil
}

// newSwarm returns a swarm with one cluster object and a ready worker that has the image app:1.
func newSwarm(t *testing.T) *swarm {
	t.Helper()
	s := &swarm{store: storetest.New(t)}
	root := token.Digest{1}
	storetest.Create(t, s.store,
		&api.Cluster{
			Id: "cluster", Spec: control.DefaultClusterSpec(),
			RootCa:     &api.RootCA{Certificate: []byte("root"), Key: []byte("root key")},
			JoinTokens: &api.JoinTokens{Worker: token.New(root).Reveal(), Manager: token.New(root).Reveal()},
		},
		node("worker1", api.Role_ROLE_WORKER, image("docker.io/library/app:1", digestA, 100)),
	)
	server, err := control.New(control.Config{
		Store: s.store, Status: func() store.Status { return s.status }, Logs: noLogs{}, Stats: ranStats{}, Placement: echoPlacement{}, Planner: echoPlanner{},
		RemoveMember: func(_ context.Context, raftID uint64) error {
			if s.removeMember == nil {
				return nil
			}
			return s.removeMember(raftID)
		},
		Users: newIssuer(t), NewUnlockKey: object.NewID, NewBackupKey: object.NewID,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.server = server
	s.ControlClient = api.NewControlClient(serve(t, server))
	return s
}

// serve returns a connection to a control server.
func serve(t *testing.T, server api.ControlServer) *grpc.ClientConn {
	t.Helper()
	listener := grpctest.Listen()
	door := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			response, err := handle(authz.NewContext(ctx, authz.Caller{Kind: callerOf(ctx), User: "ada"}), req)
			return response, fault.Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return fault.Status(handle(srv, stream))
		}),
	)
	api.RegisterControlServer(door, server)
	grpctest.Serve(t, door, listener)
	return grpctest.Dial(t, listener)
}

// as has a call made by a kind of caller; without it, administrators call.
func as(t *testing.T, caller api.Caller) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "test-caller", caller.String())
}

func callerOf(ctx context.Context) api.Caller {
	if names := metadata.ValueFromIncomingContext(ctx, "test-caller"); len(names) > 0 {
		return api.Caller(api.Caller_value[names[0]])
	}
	return api.Caller_CALLER_ADMIN
}

func node(id string, role api.Role, images ...*api.ImageSummary) *api.Node {
	return &api.Node{
		Id: id, Role: role,
		Spec:        &api.NodeSpec{DesiredRole: role, Availability: api.Availability_AVAILABILITY_ACTIVE},
		Description: &api.NodeDescription{Hostname: "host-" + id, Images: images},
		Status:      &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
	}
}

func image(reference, digest string, loadedAt int64) *api.ImageSummary {
	return &api.ImageSummary{
		Digest: digest, References: []string{reference}, LoadedAt: timestamppb.New(time.Unix(loadedAt, 0)),
	}
}

// member makes a manager of the Raft group.
func member(nodeID string, leader, reachable bool) store.MemberStatus {
	return store.MemberStatus{
		Member: &api.Member{RaftId: uint64(len(nodeID)), NodeId: nodeID, Address: nodeID + ":2377"}, Leader: leader, Reachable: reachable,
	}
}

// web returns the smallest spec of a service.
func web(changes ...func(*api.ServiceSpec)) *api.ServiceSpec {
	spec := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"},
		Task:        &api.TaskSpec{Container: &api.ContainerSpec{Image: "app:1"}},
	}
	for _, change := range changes {
		change(spec)
	}
	return spec
}

func (s *swarm) createService(t *testing.T, spec *api.ServiceSpec) *api.Service {
	t.Helper()
	response, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: spec})
	if err != nil {
		t.Fatalf("create service: %v", err)
	}
	return response.GetService()
}

func (s *swarm) createSecret(t *testing.T, name string) *api.Secret {
	t.Helper()
	response, err := s.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: secretSpec(name, []byte("value"))})
	if err != nil {
		t.Fatalf("create secret: %v", err)
	}
	return response.GetSecret()
}

func secretSpec(name string, data []byte) *api.SecretSpec {
	return &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: data}
}

// withRequestID names the request of a call.
func withRequestID(t *testing.T, id string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "skep-request-id", id)
}

// wantFault fails the test unless err has the kind and the text.
func wantFault(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	err = fault.FromStatus(err)
	if fault.KindOf(err) != kind || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v: %v\nwant %v: …%s…", fault.KindOf(err), err, kind, text)
	}
}
