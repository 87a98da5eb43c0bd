package ca_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// connect makes a connection as gRPC would, and returns its ends.
func connect(t *testing.T, server, client *ca.Identity, name string) (atServer, atClient net.Conn, err error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _, err := server.ServerCredentials().ServerHandshake(a)
		if err != nil {
			conn = nil
		}
		accepted <- conn
	}()
	atClient, _, err = client.ClientCredentials(name).ClientHandshake(context.Background(), name, b)
	return <-accepted, atClient, err
}

// closed reports whether a connection is closed, once all that can happen has.
func closed(conn net.Conn) bool {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	synctest.Wait()
	select {
	case err := <-ended:
		return err != nil
	default:
		return false
	}
}

// Those who hear of a removed node end what connects them with it, whoever began it, and don't begin anew.
func TestDistrust_EndsConnectionsWithARemovedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		removed, other := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER)), ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
		worker := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
		in, _, err := connect(t, worker, removed, worker.NodeID())
		if err != nil {
			t.Fatal(err)
		}
		_, out, err := connect(t, removed, worker, removed.NodeID())
		if err != nil {
			t.Fatal(err)
		}
		_, stays, err := connect(t, other, worker, other.NodeID())
		if err != nil {
			t.Fatal(err)
		}

		if got := worker.Transports(); !slices.Equal(got, []string{"TLS 1.3, X25519MLKEM768"}) {
			t.Errorf("negotiated %q", got)
		}
		worker.Distrust(7, map[string]api.Role{removed.NodeID(): api.Role_ROLE_UNSPECIFIED})
		if !closed(in) || !closed(out) {
			t.Errorf("connections with the removed node are closed: from it %v, to it %v", closed(in), closed(out))
		}
		if closed(stays) {
			t.Error("the connection with another node is closed, too")
		}
		if _, _, err := connect(t, removed, worker, removed.NodeID()); !errors.Is(err, ca.ErrRevoked) {
			t.Errorf("a new connection to it: %v", err)
		}
		if role, revoked := worker.Revoked(removed.NodeID()); !revoked || role != api.Role_ROLE_UNSPECIFIED {
			t.Errorf("it may be %v, revoked %v", role, revoked)
		}

		worker.Distrust(6, nil) // by a manager that is behind
		if _, revoked := worker.Revoked(removed.NodeID()); !revoked {
			t.Error("an older word made it trusted again")
		}
	})
}

// A former manager is a worker for others: with its old certificate it leads nobody, and with its new one it goes on.
func TestDistrust_LeavesADemotedNodeItsNewRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		former := catest.Member(t, r, api.Role_ROLE_MANAGER)
		demoted, worker := ca.NewIdentity(former), ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
		in, _, err := connect(t, worker, demoted, worker.NodeID())
		if err != nil {
			t.Fatal(err)
		}
		worker.Distrust(1, map[string]api.Role{demoted.NodeID(): api.Role_ROLE_WORKER})
		if !closed(in) {
			t.Error("its connection as a manager goes on")
		}
		if _, _, err := connect(t, demoted, worker, ca.OUManager); !errors.Is(err, ca.ErrRevoked) {
			t.Errorf("it still passes for a manager: %v", err)
		}
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name := former.Name()
		name.Role = api.Role_ROLE_WORKER
		if err := demoted.Replace(catest.Credentials(t, c.Root, name, 0)); err != nil {
			t.Fatal(err)
		}
		in, _, err = connect(t, worker, demoted, worker.NodeID())
		if err != nil {
			t.Fatal(err)
		}
		worker.Distrust(2, map[string]api.Role{demoted.NodeID(): api.Role_ROLE_WORKER})
		if closed(in) {
			t.Error("its connection as a worker is closed")
		}
	})
}
