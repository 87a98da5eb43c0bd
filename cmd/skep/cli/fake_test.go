package cli_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// born is when every object of the fake was made, and now is five minutes later.
func born() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }
func now() time.Time  { return born().Add(5 * time.Minute) }

// fake is a daemon of one manager whose tasks run at once. It answers as the real one does, from memory.
type fake struct {
	api.UnimplementedControlServer
	api.UnimplementedDaemonServer
	api.UnimplementedAuditServer
	api.UnimplementedLearningServer
	api.UnimplementedEventsServer
	api.UnimplementedVolumesServer
	api.UnimplementedTasksServer

	mu       sync.Mutex
	version  uint64
	state    api.LocalNodeState
	cluster  *api.Cluster
	nodes    map[string]*api.Node
	services map[string]*api.Service
	tasks    map[string]*api.Task
	secrets  map[string]*api.Secret
	configs  map[string]*api.Config
	grants   []*api.JoinGrant
	users    map[string]*api.User
	granted  map[string]*api.Grant
	ca       *ca.Root
	images   []*api.ImageInfo
	logs     []*api.ReadLogsResponse
	// samples counts the calls of ReadStats, and statsGap is why a node's statistics are missing, or "".
	samples  uint64
	statsGap string
	// outrun says that the next plan comes too late: somebody else changes the service first.
	outrun bool
	// drainLeft is how many tasks are left on a node that is drained, and drainHeld what holds them up; nodeWarnings come with every change of a node.
	drainLeft    uint32
	drainHeld    string
	nodeWarnings []string
	unlock       string
	// uploaded is the last archive, and reference the name that came with it.
	uploaded  []byte
	reference string
	// calls are the methods called, each with its request id.
	calls []call
	// faults are errors that the next calls of a method get.
	faults map[string][]error
	// stuck is why new tasks don't run, or "".
	stuck string
	// warnings come with every answer to a change of a service.
	warnings []string
	// rotation is that of the root that is under way, or nil.
	rotation *api.RootRotationProgress
	// slowManager is the id of the manager whose data key never changes.
	slowManager string
	// people are the addresses where it serves users.
	people []string
	// seenSecret is the last value that was stored.
	seenSecret []byte
	// approveAfter is how often a join that needs approval is answered with a wait.
	approveAfter int
	// audit is the audit log, and auditDropped how many of its entries are not kept any more.
	audit        []*api.AuditEntry
	auditDropped int
	// connect serves the streams of tasks.
	connect func(api.Tasks_ConnectTaskServer) error
	// holdLogs keeps a log open after its last line.
	holdLogs bool
	// secretData are what the secrets hold, by id.
	secretData map[string][]byte
	// volumes are those of all nodes.
	volumes []*api.Volume
	// doomed names the place of a task that is deleted as soon as it is watched, or "".
	doomed string
	// changed is closed and replaced at each change.
	changed chan struct{}
}

type call struct{ method, requestID string }

func newFake() *fake {
	f := &fake{
		state: api.LocalNodeState_LOCAL_NODE_STATE_INACTIVE, nodes: map[string]*api.Node{}, services: map[string]*api.Service{},
		tasks: map[string]*api.Task{}, secrets: map[string]*api.Secret{}, secretData: map[string][]byte{}, configs: map[string]*api.Config{}, users: map[string]*api.User{}, granted: map[string]*api.Grant{}, faults: map[string][]error{}, changed: make(chan struct{}),
	}
	return f
}

// serve serves the fake on a socket until the test ends.
func (f *fake) serve(t testing.TB, socket string, cleanup func(func())) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := f.record(ctx, info.FullMethod); err != nil {
				return nil, fault.Status(err)
			}
			answer, err := handle(ctx, req)
			return answer, fault.Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := f.record(stream.Context(), info.FullMethod); err != nil {
				return fault.Status(err)
			}
			return fault.Status(handle(srv, stream))
		}),
	)
	api.RegisterControlServer(server, f)
	api.RegisterDaemonServer(server, f)
	api.RegisterAuditServer(server, f)
	api.RegisterLearningServer(server, f)
	api.RegisterEventsServer(server, f)
	api.RegisterVolumesServer(server, f)
	api.RegisterTasksServer(server, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	cleanup(func() {
		server.Stop()
		<-done
	})
}

// record remembers a call and returns the fault that was planned for it.
func (f *fake) record(ctx context.Context, fullMethod string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	method := fullMethod[strings.LastIndex(fullMethod, "/")+1:]
	f.calls = append(f.calls, call{method, strings.Join(md.Get(client.RequestIDKey), ",")})
	if planned := f.faults[method]; len(planned) > 0 {
		f.faults[method] = planned[1:]
		return planned[0]
	}
	return nil
}

// change runs fn and wakes every watch.
func (f *fake) change(fn func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := fn(); err != nil {
		return err
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *fake) meta() *api.Meta {
	f.version++
	return &api.Meta{Version: f.version, CreatedAt: timestamppb.New(born()), UpdatedAt: timestamppb.New(born())}
}

// id returns 25 characters, the first 12 of which name a kind and a number.
func (f *fake) id(kind string) string {
	f.version++
	return fmt.Sprintf("%s%0*d%s", kind, 12-len(kind), f.version, strings.Repeat("x", 13))
}

func (f *fake) ready() error {
	if f.state != api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE {
		return fault.New(fault.Precondition, "this node is not a swarm manager: run 'skep swarm init' or 'skep swarm join'")
	}
	return nil
}

// lookUp finds an object by id, name or id prefix.
func lookUp[T any](kind string, objects map[string]T, name func(T) string, ref string) (T, error) {
	for _, id := range slices.Sorted(maps.Keys(objects)) {
		if id == ref || name(objects[id]) == ref || strings.HasPrefix(id, ref) {
			return objects[id], nil
		}
	}
	var none T
	return none, fault.New(fault.NotFound, "no such %s: %s", kind, ref)
}

func secretNamed(s *api.Secret) string   { return s.GetSpec().GetAnnotations().GetName() }
func serviceNamed(s *api.Service) string { return s.GetSpec().GetAnnotations().GetName() }
func nodeNamed(n *api.Node) string       { return n.GetDescription().GetHostname() }

func (f *fake) CreateSecret(_ context.Context, r *api.CreateSecretRequest) (*api.CreateSecretResponse, error) {
	out := &api.CreateSecretResponse{}
	return out, f.change(func() error {
		if err := f.ready(); err != nil {
			return err
		}
		name := r.GetSpec().GetAnnotations().GetName()
		for _, other := range f.secrets {
			if secretNamed(other) == name {
				return fault.New(fault.AlreadyExists, "secret %q exists already: choose another name", name)
			}
		}
		f.seenSecret = r.GetSpec().GetData()
		out.Secret = &api.Secret{
			Id: f.id("secret"), Meta: f.meta(), Spec: &api.SecretSpec{Annotations: r.GetSpec().GetAnnotations()},
		}
		f.secrets[out.Secret.GetId()] = out.GetSecret()
		f.secretData[out.Secret.GetId()] = r.GetSpec().GetData()
		return nil
	})
}

func (f *fake) GetSecret(_ context.Context, r *api.GetSecretRequest) (*api.GetSecretResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	secret, err := lookUp("secret", f.secrets, secretNamed, r.GetSecret())
	return &api.GetSecretResponse{Secret: secret}, err
}

func (f *fake) ListSecrets(context.Context, *api.ListSecretsRequest) (*api.ListSecretsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListSecretsResponse{Secrets: slices.Collect(maps.Values(f.secrets))}, f.ready()
}

func (f *fake) RemoveSecret(_ context.Context, r *api.RemoveSecretRequest) (*api.RemoveSecretResponse, error) {
	out := &api.RemoveSecretResponse{}
	return out, f.change(func() error {
		secret, err := lookUp("secret", f.secrets, secretNamed, r.GetSecret())
		if err != nil {
			return err
		}
		for _, service := range f.services {
			for _, ref := range service.GetSpec().GetTask().GetContainer().GetSecrets() {
				if ref.GetSecretId() == secret.GetId() {
					return fault.New(fault.Precondition, "secret '%s' is in use by the following service: %s",
						secretNamed(secret), serviceNamed(service))
				}
			}
		}
		out.SecretId = secret.GetId()
		delete(f.secrets, secret.GetId())
		return nil
	})
}

func (f *fake) CreateService(_ context.Context, r *api.CreateServiceRequest) (*api.CreateServiceResponse, error) {
	out := &api.CreateServiceResponse{}
	return out, f.change(func() error {
		if err := f.ready(); err != nil {
			return err
		}
		out.Service = &api.Service{Id: f.id("service"), Meta: f.meta(), Spec: r.GetSpec(), SpecVersion: 1}
		if serviceNamed(out.GetService()) == "" {
			out.Service.Spec.Annotations.Name = "quiet_skep"
		}
		if _, err := lookUp("service", f.services, serviceNamed, serviceNamed(out.GetService())); err == nil {
			return fault.New(fault.AlreadyExists, "service %q exists already: choose another name", serviceNamed(out.GetService()))
		}
		f.services[out.Service.GetId()] = out.GetService()
		f.fill(out.GetService())
		return nil
	})
}

// everywhere reports whether a service has a task on each node.
func everywhere(s *api.Service) bool {
	return s.GetSpec().GetGlobal() != nil || s.GetSpec().GetGlobalJob() != nil
}

// countsOf are the numbers of a service, without those that run.
func (f *fake) countsOf(s *api.Service) *api.ServiceCounts {
	if progress.IsJob(s) {
		return &api.ServiceCounts{Completed: f.replicas(s), Total: f.replicas(s)}
	}
	return &api.ServiceCounts{Desired: f.replicas(s)}
}

// replicas is how many tasks a service is to have.
func (f *fake) replicas(service *api.Service) uint64 {
	if everywhere(service) {
		return uint64(len(f.nodes))
	}
	if job := service.GetSpec().GetReplicatedJob(); job != nil {
		return job.GetTotalCompletions()
	}
	return service.GetSpec().GetReplicated().GetReplicas()
}

// fill gives a service the tasks that it lacks, and takes those beyond.
func (f *fake) fill(service *api.Service) {
	replicas := f.replicas(service)
	for slot := uint64(1); slot <= replicas; slot++ {
		task := &api.Task{
			Id: f.id("task"), Meta: f.meta(), ServiceId: service.GetId(), ServiceName: serviceNamed(service), Slot: slot,
			Spec: service.GetSpec().GetTask(), SpecVersion: service.GetSpecVersion(), Endpoint: service.GetSpec().GetEndpoint(),
			DesiredState: api.TaskState_TASK_STATE_RUNNING,
			Status:       &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING, Timestamp: timestamppb.New(born())},
		}
		if f.stuck != "" {
			task.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_PENDING, Err: f.stuck, Timestamp: timestamppb.New(born())}
		} else {
			task.NodeId = slices.Sorted(maps.Keys(f.nodes))[0]
		}
		if progress.IsJob(service) {
			task.DesiredState, task.Status.State = api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_COMPLETE
		}
		if everywhere(service) {
			task.BoundNodeId = slices.Sorted(maps.Keys(f.nodes))[slot-1]
		}
		if !f.hasTask(task) {
			f.tasks[task.GetId()] = task
		}
	}
	for id, task := range f.tasks {
		old := task.GetSpecVersion() != service.GetSpecVersion()
		if task.GetServiceId() == service.GetId() && (task.GetSlot() > replicas || old) {
			ended := proto.Clone(task).(*api.Task)
			ended.DesiredState, ended.Status.State = api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_SHUTDOWN
			ended.Meta.CreatedAt = timestamppb.New(born().Add(-time.Minute))
			f.tasks[id] = ended
		}
	}
}

func (f *fake) hasTask(wanted *api.Task) bool {
	for _, task := range f.tasks {
		if task.GetServiceId() == wanted.GetServiceId() && task.GetSlot() == wanted.GetSlot() &&
			task.GetSpecVersion() == wanted.GetSpecVersion() && task.GetDesiredState() == wanted.GetDesiredState() {
			return true
		}
	}
	return false
}

func (f *fake) GetService(_ context.Context, r *api.GetServiceRequest) (*api.GetServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	service, err := lookUp("service", f.services, serviceNamed, r.GetService())
	return &api.GetServiceResponse{Service: service}, err
}

func (f *fake) ListServices(context.Context, *api.ListServicesRequest) (*api.ListServicesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListServicesResponse{Counts: map[string]*api.ServiceCounts{}}
	for id, service := range f.services {
		out.Services = append(out.Services, service)
		counts := f.countsOf(service)
		for _, task := range f.tasks {
			if task.GetServiceId() == id && task.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
				counts.Running++
			}
		}
		out.Counts[id] = counts
	}
	return out, f.ready()
}

func (f *fake) UpdateService(_ context.Context, r *api.UpdateServiceRequest) (*api.UpdateServiceResponse, error) {
	out := &api.UpdateServiceResponse{}
	return out, f.change(func() error {
		present := f.services[r.GetServiceId()]
		if present.GetMeta().GetVersion() != r.GetVersion() {
			return fault.New(fault.Conflict, "update out of sequence")
		}
		out.Service = proto.Clone(present).(*api.Service)
		out.Warnings = f.warnings
		if proto.Equal(present.GetSpec(), r.GetSpec()) {
			return nil
		}
		out.Service.PreviousSpec = present.GetSpec()
		out.Service.UpdateStatus = &api.UpdateStatus{
			State: api.UpdateState_UPDATE_STATE_COMPLETED, StartedAt: timestamppb.New(born()), CompletedAt: timestamppb.New(born()),
			Message: "update completed",
		}
		out.Service.Spec = r.GetSpec()
		if !proto.Equal(present.GetSpec().GetTask(), r.GetSpec().GetTask()) {
			out.Service.SpecVersion++
		}
		out.Service.Meta = f.meta()
		f.services[r.GetServiceId()] = out.GetService()
		f.fill(out.GetService())
		return nil
	})
}

func (f *fake) RemoveService(_ context.Context, r *api.RemoveServiceRequest) (*api.RemoveServiceResponse, error) {
	out := &api.RemoveServiceResponse{}
	return out, f.change(func() error {
		service, err := lookUp("service", f.services, serviceNamed, r.GetService())
		if err != nil {
			return err
		}
		out.ServiceId = service.GetId()
		delete(f.services, service.GetId())
		maps.DeleteFunc(f.tasks, func(_ string, task *api.Task) bool { return task.GetServiceId() == service.GetId() })
		return nil
	})
}

func (f *fake) ListTasks(_ context.Context, r *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListTasksResponse{}
	for _, id := range slices.Sorted(maps.Keys(f.tasks)) {
		task := f.tasks[id]
		if len(r.GetServiceIds()) > 0 && !slices.Contains(r.GetServiceIds(), task.GetServiceId()) ||
			len(r.GetNodeIds()) > 0 && !slices.Contains(r.GetNodeIds(), task.GetNodeId()) {
			continue
		}
		task = proto.CloneOf(task)
		task.SpiffeId = fmt.Sprintf("spiffe://cluster/service/%s/task/%d", task.GetServiceName(), task.GetSlot())
		out.Tasks = append(out.Tasks, task)
	}
	return out, nil
}

func (f *fake) WatchService(r *api.WatchServiceRequest, stream grpc.ServerStreamingServer[api.WatchServiceResponse]) error {
	if _, bounded := stream.Context().Deadline(); bounded {
		return context.DeadlineExceeded // as a server does whose clock is a little ahead of the caller's
	}
	for {
		f.mu.Lock()
		changed, service := f.changed, f.services[r.GetServiceId()]
		answer := &api.WatchServiceResponse{Service: service, Counts: f.countsOf(service)}
		for _, id := range slices.Sorted(maps.Keys(f.tasks)) {
			if f.tasks[id].GetServiceId() == r.GetServiceId() {
				answer.Tasks = append(answer.Tasks, f.tasks[id])
			}
		}
		f.mu.Unlock()
		if service == nil {
			return fault.New(fault.NotFound, "no such service: %s", r.GetServiceId())
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		if err := f.deleteDoomed(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (f *fake) ReadLogs(r *api.ReadLogsRequest, stream grpc.ServerStreamingServer[api.ReadLogsResponse]) error {
	f.mu.Lock()
	logs := slices.Clone(f.logs)
	_, err := lookUp("service or task", f.services, serviceNamed, r.GetTarget())
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if tail := r.GetOptions().GetTail(); tail >= 0 {
		logs = logs[max(0, len(logs)-int(tail)):]
	}
	for _, line := range logs {
		at, text := line.GetLine().GetTime().AsTime(), string(line.GetLine().GetData())
		if since := r.GetOptions().GetSince(); since != nil && at.Before(since.AsTime()) {
			continue
		}
		if until := r.GetOptions().GetUntil(); until != nil && at.After(until.AsTime()) {
			continue
		}
		if line.GetLine().GetTime() != nil && !strings.Contains(text, r.GetOptions().GetGrep()) {
			continue
		}
		if line.GetLine() != nil && r.GetOptions().GetDetails() {
			line.GetLine().Details = map[string]string{"tier": "front end", "a": "b"}
		}
		if err := stream.Send(line); err != nil {
			return err
		}
	}
	if f.holdLogs {
		<-stream.Context().Done()
	}
	return nil
}

// drain reads an upload.
func drain[R any](recv func() (R, error), take func(R)) error {
	for {
		request, err := recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		take(request)
	}
}
