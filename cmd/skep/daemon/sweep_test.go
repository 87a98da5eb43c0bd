package daemon

import (
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

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
	d.managed, d.people = newManagedServices(d.absence), authz.NewPeople()
	d.authorizer = authz.New(authz.Config{ClusterID: d.clusterID, Nodes: nodeRecords{d.managed, d.revoked}, Users: userRecords{d.managed}})
	return d
}

// update rewrites the tables of docs/roles.md.
var update = flag.Bool("update", false, "rewrite docs/roles.md")

const (
	rolesPage = "../../../docs/roles.md"
	// tablesMark is the line of the page after which all is generated.
	tablesMark = "<!-- What follows is what the sweep found: go test ./cmd/skep/daemon -run TestSweep -update -->\n\n"
)

// TestSweep calls every RPC of all servers, as the daemon makes them, with every kind of identity (I8), and compares what happens
// with the rules in proto/, and with the tables in the docs.
func TestSweep(t *testing.T) {
	d := newTestDaemon(t)
	local := func(a *authz.Authorizer, options ...grpc.ServerOption) *grpc.Server {
		d.authorizer = a
		return d.localServer(options...)
	}
	table := authztest.Sweep(t, authztest.Doors{
		Nodes: func(a *authz.Authorizer, options ...grpc.ServerOption) *grpc.Server {
			d.authorizer = a
			return d.networkServer(&agent.Agent{}, options...)
		},
		People: local, Socket: local,
	})
	page, err := os.ReadFile(rolesPage)
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(page), tablesMark)
	if !found {
		t.Fatalf("%s has no line %q", rolesPage, tablesMark)
	}
	want := text + tablesMark + table.Markdown()
	if *update {
		if err := os.WriteFile(rolesPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("the page differs from what the sweep found; run it with -update and look at what has changed:\n%s", diff)
	}
}

// A server with a method that says not who may call it does not start.
func TestServe_RefusesUndeclaredMethods(t *testing.T) {
	server := newTestDaemon(t).localServer()
	grpc_health_v1.RegisterHealthServer(server, grpc_health_v1.UnimplementedHealthServer{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), server, listener); !errors.Is(err, authz.ErrUndeclared) {
		t.Errorf("got %v", err)
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the address is still open: %v", err)
	}
}
