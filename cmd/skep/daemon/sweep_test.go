package daemon

import (
	"log/slog"
	"testing"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/authz/authztest"
)

// newTestDaemon returns a daemon on an empty disk that is in no swarm and has no supervisor.
func newTestDaemon(t *testing.T) *Daemon {
	t.Helper()
	dir := t.TempDir()
	disk, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		cfg: Config{DataDir: dir, Version: "test"}, logger: slog.New(slog.DiscardHandler), disk: disk, own: ownKey{disk: disk},
		start: make(chan *node), fallen: make(chan struct{}, 1),
	}
	d.managed = newManagedServices(d.absence)
	d.authorizer = authz.New(authz.Config{ClusterID: d.clusterID, Nodes: nodeRecords{d.managed, d.revoked}})
	return d
}

// TestSweep calls every RPC of both servers, as the daemon makes them, with every kind of identity. (I8)
func TestSweep(t *testing.T) {
	d := newTestDaemon(t)
	authztest.Sweep(t,
		func(a *authz.Authorizer, options ...grpc.ServerOption) *grpc.Server {
			d.authorizer = a
			return d.networkServer(&agent.Agent{}, options...)
		},
		func(a *authz.Authorizer, options ...grpc.ServerOption) *grpc.Server {
			d.authorizer = a
			return d.localServer(options...)
		})
}
