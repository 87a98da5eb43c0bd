package manager_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// callerKey is the metadata with which a test says which node calls; in life the transport proves it.
const callerKey = "test-node"

func identify(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	caller := authz.Caller{Kind: api.Caller_CALLER_ADMIN}
	if id := md.Get(callerKey); len(id) > 0 {
		caller = authz.Caller{Kind: api.Caller_CALLER_WORKER, NodeID: id[0], Address: "10.0.0.1:1"}
	}
	return authz.NewContext(ctx, caller)
}

// identifiedStream is a stream with a caller.
type identifiedStream struct{ grpc.ServerStream }

func (s identifiedStream) Context() context.Context { return identify(s.ServerStream.Context()) }

// start founds a swarm on a local store and runs its manager until the test ends.
func start(t *testing.T) (*store.Store, caserver.Founding, *grpc.ClientConn) {
	t.Helper()
	s := storetest.New(t)
	founding, err := caserver.Found(time.Now(), caserver.FoundConfig{
		Spec: control.DefaultClusterSpec(), Hostname: "first", Availability: api.Availability_AVAILABILITY_ACTIVE,
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := manager.New(manager.Config{
		NodeID: founding.Node.GetId(), Store: s, Raft: api.UnimplementedRaftServer{}, Logger: slog.New(slog.DiscardHandler), BackupDir: t.TempDir(),
		Dial: func(string, string, ...grpc.DialOption) (*grpc.ClientConn, error) {
			return nil, errors.New("there is nobody else")
		},
		LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return seal.NewKey(), seal.SourceKeyFile, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	conn, stop := serve(t, m)
	t.Cleanup(func() {
		stop()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for range 2 { // again changes nothing
		if err := manager.Bootstrap(t.Context(), s, founding); err != nil {
			t.Fatal(err)
		}
	}
	return s, founding, conn
}

func serve(t *testing.T, m *manager.Manager) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	listener := grpctest.Listen()
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			response, err := handler(identify(ctx), request)
			return response, fault.Status(err)
		}, m.Interceptor()),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return fault.Status(handler(srv, identifiedStream{stream}))
		}),
	)
	m.Register(server)
	if err := authz.Check(server); err != nil {
		t.Fatal(err)
	}
	stopServer := grpctest.Serve(t, server, listener)
	conn = grpctest.Dial(t, listener)
	return conn, func() {
		_ = conn.Close()
		stopServer()
	}
}

// TestManager_RunsAService goes the whole way with one agent: from its registration to a task that it reports as running.
func TestManager_RunsAService(t *testing.T) {
	_, founding, conn := start(t)
	people := api.NewControlClient(conn)
	node := founding.Node.GetId()
	agent := metadata.AppendToOutgoingContext(t.Context(), callerKey, node)
	dispatcher := api.NewDispatcherClient(conn)
	session, err := dispatcher.Session(agent, &api.SessionRequest{Description: &api.NodeDescription{
		Hostname: "first", Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
		Resources: &api.Resources{NanoCpus: 1e9, MemoryBytes: 1 << 30},
		Images: []*api.ImageSummary{{
			Digest: digest, References: []string{"docker.io/library/app:1"}, LoadedAt: timestamppb.Now(),
			Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	welcome, err := session.Recv()
	if err != nil {
		t.Fatal(err)
	}
	// Acknowledged once it is committed, so the image is known from here on.
	_, err = dispatcher.UpdateDescription(agent, &api.UpdateDescriptionRequest{
		SessionId: welcome.GetSessionId(), Description: &api.NodeDescription{
			Hostname: "first", Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
			Resources: &api.Resources{NanoCpus: 1e9, MemoryBytes: 1 << 30},
			Images:    []*api.ImageSummary{{Digest: digest, References: []string{"docker.io/library/app:1"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	created, err := people.CreateService(t.Context(), &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"}, Task: &api.TaskSpec{Container: &api.ContainerSpec{Image: "app:1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	task := assigned(t, agent, dispatcher, welcome.GetSessionId())
	if task.GetServiceId() != created.GetService().GetId() || task.GetSpec().GetContainer().GetImage() != "docker.io/library/app:1@"+digest {
		t.Errorf("assigned task %v", task)
	}
	_, err = dispatcher.UpdateTaskStatus(agent, &api.UpdateTaskStatusRequest{
		SessionId: welcome.GetSessionId(),
		Updates:   []*api.TaskStatusUpdate{{TaskId: task.GetId(), Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := people.ListServices(t.Context(), &api.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if count := list.GetCounts()[created.GetService().GetId()]; count.GetRunning() != 1 || count.GetDesired() != 1 {
		t.Errorf("got %d/%d tasks", count.GetRunning(), count.GetDesired())
	}
}

// assigned waits for the first task that is assigned.
func assigned(t *testing.T, ctx context.Context, dispatcher api.DispatcherClient, sessionID string) *api.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := dispatcher.Assignments(ctx, &api.AssignmentsRequest{SessionId: sessionID})
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			t.Fatalf("wait for a task: %v", err)
		}
		for _, change := range message.GetChanges() {
			if task := change.GetTask(); task != nil {
				return task
			}
		}
	}
}

func TestManager_IssuesCertificatesForItsTokens(t *testing.T) {
	_, founding, conn := start(t)
	root, err := api.NewCAClient(conn).GetRootCertificate(t.Context(), &api.GetRootCertificateRequest{})
	if err != nil || string(root.GetCertificate()) != string(founding.Cluster.GetRootCa().GetCertificate()) {
		t.Errorf("got another root, %v", err)
	}
	_, err = api.NewCAClient(conn).IssueCertificate(t.Context(), &api.IssueCertificateRequest{Token: "foobaz"})
	if err := fault.FromStatus(err); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("a token that is none: %v", err)
	}
}

func TestNew_WantsEverything(t *testing.T) {
	if _, err := manager.New(manager.Config{}); err == nil {
		t.Error("made a manager of nothing")
	}
}
