package authz_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/authz/authztest"
)

// services are all that there are; each registers itself without an implementation.
func services() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{
		&api.Agent_ServiceDesc, &api.Audit_ServiceDesc, &api.CA_ServiceDesc, &api.Control_ServiceDesc, &api.Daemon_ServiceDesc,
		&api.Dispatcher_ServiceDesc, &api.Events_ServiceDesc, &api.Learning_ServiceDesc, &api.NodeLearning_ServiceDesc, &api.NodeTasks_ServiceDesc, &api.NodeVolumes_ServiceDesc, &api.Raft_ServiceDesc, &api.Tasks_ServiceDesc, &api.Volumes_ServiceDesc,
	}
}

func TestSweep_MissesNoService(t *testing.T) {
	swept := map[protoreflect.FullName]bool{}
	for _, desc := range services() {
		swept[protoreflect.FullName(desc.ServiceName)] = true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("skep.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if name := f.Services().Get(i).FullName(); !swept[name] {
				t.Errorf("%s is not swept: add it to services", name)
			}
		}
		return true
	})
}

// TestSweep sweeps all services of the API, at all doors, whatever the daemon will register where.
func TestSweep(t *testing.T) {
	all := func(a *authz.Authorizer, opts ...grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(append(a.ServerOptions(), opts...)...)
		for _, desc := range services() {
			s.RegisterService(desc, nil)
		}
		return s
	}
	authztest.Sweep(t, authztest.Doors{Nodes: all, People: all, Socket: all})
}
