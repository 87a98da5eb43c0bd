package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
)

// swarm is one with a root CA.
type swarm struct {
	root *ca.Root
	id   string
}

func newSwarm(t *testing.T) swarm {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return swarm{root, catest.NewID()}
}

// user returns what a user has.
func (s swarm) user(t *testing.T, life time.Duration) client.TLS {
	t.Helper()
	cert := catest.UserCertificate(t, s.root, ca.UserName{ClusterID: s.id, User: "alice", Role: api.UserRole_USER_ROLE_VIEWER}, life)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return client.TLS{
		CA: s.root.CertificatePEM(), Cert: ca.EncodeBundle([]*x509.Certificate{cert.Leaf}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// node serves people as a node of the swarm does, and returns its address.
func (s swarm) node(t *testing.T, d *daemon, role api.Role) string {
	t.Helper()
	return servePeople(t, d, ca.NewIdentity(catest.Credentials(t, s.root, ca.Name{ClusterID: s.id, NodeID: catest.NewID(), Role: role}, 0)))
}

// servePeople serves people with an identity, or nil, and returns the address.
func servePeople(t *testing.T, d *daemon, id *ca.Identity) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(ca.PeopleCredentials(ca.PeopleTLS(func() *ca.Identity { return id }))))
	api.RegisterDaemonServer(server, d)
	grpctest.Serve(t, server, listener)
	return "tcp://" + listener.Addr().String()
}

func call(t *testing.T, host string, with client.TLS) error {
	t.Helper()
	c, err := client.Dial(client.Endpoint{Host: host, TLS: with}, time.Nanosecond)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Daemon.GetInfo(t.Context(), &api.GetInfoRequest{})
	return err
}

func TestTLS_SpeaksToManagersOfTheSwarmOnly(t *testing.T) {
	s, other := newSwarm(t), newSwarm(t)
	d := &daemon{}
	if err := call(t, s.node(t, d, api.Role_ROLE_MANAGER), s.user(t, 0)); err != nil {
		t.Fatal(err)
	}
	heard := len(d.ids)
	mine, theirs := s.user(t, 0), other.user(t, 0)
	for what, test := range map[string]struct {
		host string
		with client.TLS
		want string
	}{
		"a worker":                {s.node(t, d, api.Role_ROLE_WORKER), mine, "is it a worker?"},
		"another swarm's manager": {other.node(t, d, api.Role_ROLE_MANAGER), mine, "not a manager that can be trusted"},
		"a manager that does not know this certificate": {
			s.node(t, d, api.Role_ROLE_MANAGER), client.TLS{CA: mine.CA, Cert: theirs.Cert, Key: theirs.Key}, "does not accept this certificate",
		},
	} {
		err := call(t, test.host, test.with)
		if fault.KindOf(err) != fault.Unauthenticated || !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(d.ids) != heard {
		t.Errorf("%d calls reached somebody who must not have them (I3)", len(d.ids)-heard)
	}
}

func TestTLS_SaysThatANodeHasNoSwarm(t *testing.T) {
	err := call(t, servePeople(t, &daemon{}, nil), newSwarm(t).user(t, 0))
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fmt.Sprint(err), "is locked, or is in no swarm") {
		t.Errorf("got %v", err)
	}
}

// A server of one's own CA is known by the name that was dialled.
func TestTLS_KnowsAServerByItsHostName(t *testing.T) {
	s := newSwarm(t)
	own := catest.Credentials(t, s.root, ca.Name{ClusterID: s.id, NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}, 0)
	cert := tls.Certificate{Certificate: [][]byte{own.Chain()[0].Raw}, PrivateKey: own.RevealKey()}
	authorities := x509.NewCertPool()
	authorities.AddCert(s.root.Certificate())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(ca.PeopleCredentials(ca.ExternalPeopleTLS(cert, authorities))))
	grpctest.Serve(t, server, listener)
	if err := call(t, "tcp://"+listener.Addr().String(), s.user(t, 0)); !strings.Contains(fmt.Sprint(err), "neither a manager's nor for the name 127.0.0.1") {
		t.Errorf("a certificate for another name: %v", err)
	}
}

func TestTLS_SaysWhatIsWrongWithIt(t *testing.T) {
	s := newSwarm(t)
	good, other := s.user(t, 0), s.user(t, 0)
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		with client.TLS
		want string
	}{
		"nothing":       {client.TLS{}, "the CA file holds no certificate"},
		"no key":        {client.TLS{CA: good.CA, Cert: good.Cert}, "certificate and key"},
		"another's key": {client.TLS{CA: good.CA, Cert: good.Cert, Key: other.Key}, "certificate and key"},
	} {
		err := call(t, "tcp://127.0.0.1:1", test.with)
		if !errors.Is(err, client.ErrTLS) || fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTLS_PrintsNothingOfItself(t *testing.T) {
	with := newSwarm(t).user(t, 0)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "tls", with)
	for _, text := range []string{fmt.Sprint(with), fmt.Sprintf("%#v", client.Endpoint{TLS: with}), fmt.Sprintf("%+v", &with), log.String()} {
		if strings.Contains(text, "BEGIN") || strings.Contains(text, "0x2d") {
			t.Errorf("printed %s", text)
		}
	}
}

func TestDial_SaysThatNobodyAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := call(t, "tcp://"+address, newSwarm(t).user(t, 0)); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
