package authz_test

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/authz/authztest"
)

// TestSweep sweeps all services of the API, on both listeners, whatever the daemon will register where.
func TestSweep(t *testing.T) {
	all := func(a *authz.Authorizer, opts ...grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(append(a.ServerOptions(), opts...)...)
		api.RegisterCAServer(s, api.UnimplementedCAServer{})
		api.RegisterControlServer(s, api.UnimplementedControlServer{})
		api.RegisterDispatcherServer(s, api.UnimplementedDispatcherServer{})
		api.RegisterRaftServer(s, api.UnimplementedRaftServer{})
		api.RegisterAgentServer(s, api.UnimplementedAgentServer{})
		api.RegisterDaemonServer(s, api.UnimplementedDaemonServer{})
		return s
	}
	authztest.Sweep(t, all, all)
}
